"""The report of one pair: a page that needs nothing but a browser."""

from __future__ import annotations

import base64
from html import escape
from string import Template
from typing import TYPE_CHECKING

from crosstie.io.products.text import VERDICT_COLOURS, crs_name, figures, headline, sentences
from crosstie.io.storage.href import product_href
from crosstie.types import VerdictCode

if TYPE_CHECKING:
    from crosstie.types import Registration

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark;
  --ink: #1b1f24; --faint: #5b6470; --line: #d8dee6; --page: #fff; --card: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --faint: #9aa5b1; --line: #343c46; --page: #14181d; --card: #1d232a }
}
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
header { background: $colour; color: #fff; border-radius: .6rem; padding: 1.1rem 1.4rem }
header h1 { margin: 0; font-size: 1.9rem; line-height: 1.2 }
header p { margin: .4rem 0 0 }
h2 { margin: 2rem 0 .6rem; font-size: 1.2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { width: 16rem; font-weight: 500; color: var(--faint) }
img { width: 100%; height: auto; border: 1px solid var(--line); border-radius: .4rem; background: #fff }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem;
  overflow-x: auto; font-size: .9rem }
footer { margin-top: 2rem; color: var(--faint); font-size: .9rem }
</style>
</head>
<body>
<header><h1>$headline</h1>
$sentences
</header>
<h2>The pair</h2>
<table>$pair</table>
<h2>In figures</h2>
<table>$figures</table>
<p>An offset is the position of a feature in the secondary minus its position in the reference. RMSE is the
root mean square distance over the tie points in use; nine in ten are no farther off than CE90.</p>
<h2>To look at</h2>
<img alt="Both images, their overlay before and after, offsets as arrows, and a histogram of the errors"
 src="data:image/png;base64,$picture">
<h2>To use it</h2>
$use
<h2>How it was made</h2>
<table>$provenance</table>
<footer>Made by crosstie. Beside this page: correction.json, tie_points.parquet, item.json, corrected.vrt,
overview.png.</footer>
</body>
</html>
""")


def report_html(registration: Registration, overview_png: bytes) -> bytes:
    """Write the report of one pair: verdict, figures, picture, how to use the correction, provenance.

    One file with no script and nothing to load; every text that came from elsewhere is escaped.
    """
    verdict = registration.estimate.verdict
    provenance = registration.provenance
    page = _PAGE.substitute(
        title=escape(f"{headline(verdict)}: {registration.secondary_id}"),
        colour=VERDICT_COLOURS[verdict.code],
        headline=escape(headline(verdict)),
        sentences="\n".join(f"<p>{escape(text)}</p>" for text in sentences(registration)),
        pair=_rows(
            [
                ("Reference", registration.reference_id),
                *(("", product_href(href)) for href in registration.reference_hrefs),
                ("Secondary", registration.secondary_id),
                *(("", product_href(href)) for href in registration.secondary_hrefs),
            ]
        ),
        figures=_rows(figures(registration)),
        picture=base64.b64encode(overview_png).decode(),
        use=_use(registration),
        provenance=_rows(
            [
                ("Verdict, reasons", str(verdict)),
                ("Pair, run", f"{registration.pair_key} / {registration.run_key}"),
                ("Software", ", ".join(f"{name} {version}" for name, version in provenance.versions)),
                ("Weights (sha256)", provenance.weights_sha256),
                ("Settings", provenance.settings_hash),
                ("Made", f"{provenance.created_utc:%Y-%m-%d %H:%M:%S} UTC in {provenance.seconds:.1f} s"),
            ]
        ),
    )
    return page.encode()


def _rows(rows: list[tuple[str, str]]) -> str:
    return "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows
    )


def _use(registration: Registration) -> str:
    if registration.estimate.verdict.code is not VerdictCode.CORRECTED:
        return (
            "<p>There is no correction to apply: <code>corrected.vrt</code> is the secondary as it was "
            "delivered, and the affine in <code>correction.json</code> is the identity.</p>"
        )
    a, b, c, d, e, f = registration.estimate.correction.affine
    formula = f"x' = {a!r} x + {b!r} y + {c!r}\ny' = {d!r} x + {e!r} y + {f!r}"
    return (
        "<p>Open <code>corrected.vrt</code> in QGIS, GDAL or rasterio in place of the secondary: it has the "
        "same pixels at corrected coordinates (keep the secondary's file where it is).</p>"
        "<p>Or move any coordinates of the secondary, vectors for instance, in metres of "
        f"{escape(crs_name(registration))}:</p><pre>{escape(formula)}</pre>"
    )
