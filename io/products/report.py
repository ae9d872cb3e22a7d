"""The report of one pair: a page that needs nothing but a browser."""

from __future__ import annotations

import base64
from html import escape
from string import Template
from typing import TYPE_CHECKING

from crosstie.io.products.text import (
    CONFIDENCE,
    colour,
    crs_name,
    figures,
    has_field,
    headline,
    sentences,
)
from crosstie.io.storage.href import product_href
from crosstie.types import VerdictCode

if TYPE_CHECKING:
    from crosstie.io.products.pictures import Picture, Pictures
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
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --faint: #9aa5b1; --line: #343c46; --page: #14181d; --card: #1d232a }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
header { background: $colour; color: #fff; border-radius: .6rem; padding: 1.1rem 1.4rem;
  print-color-adjust: exact; -webkit-print-color-adjust: exact }
header h1 { margin: 0; font-size: 1.9rem; line-height: 1.2 }
header p { margin: .4rem 0 0 }
h2 { margin: 2rem 0 .6rem; font-size: 1.2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { width: 16rem; font-weight: 500; color: var(--faint) }
figure { margin: 0; break-inside: avoid }
figcaption { padding: .2rem 0; font-weight: 500 }
img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: .4rem;
  background: #fff }
.side { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)) }
.scenes { max-width: 40rem }
fieldset { border: 0; margin: 0; padding: .2rem 0 }
legend { float: left; min-width: 6rem; padding: .3rem 0; color: var(--faint) }
label { display: inline-block; padding: .3rem .9rem .3rem 0 }
.frames { display: grid; max-width: 40rem }
.frames figure { grid-area: 1 / 1; visibility: hidden; background: var(--page) }
.frames img { image-rendering: pixelated }
.frames .reference { z-index: 1 }
$checked { visibility: visible }
.look:has(#show-turns:checked) .reference { animation: turns 1.6s step-end infinite }
@keyframes turns { 50% { visibility: hidden } }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem;
  overflow-x: auto; font-size: .9rem }
footer { margin-top: 2rem; color: var(--faint); font-size: .9rem }
@media (max-width: 40rem) {
  body { padding: .8rem }
  table, tbody, tr, th, td { display: block; width: auto }
  th { border: 0; padding: .5rem 0 0 }
  td { padding: 0 0 .5rem }
  legend { float: none }
  label { padding: .5rem 1rem .5rem 0 }
}
@media print {
  body { padding: 0; font-size: 11px }
  .look fieldset { display: none }
  .frames { grid-template-columns: 1fr 1fr; gap: .6rem; max-width: none }
  .frames figure { grid-area: auto; visibility: visible }
  .side { grid-template-columns: repeat(3, 1fr) }
}
</style>
</head>
<body>
<main>
<header><h1>$headline</h1>
$sentences
</header>
$pictures
<h2>In figures</h2>
<table>$figures</table>
<p>An offset is the position of a feature in the secondary minus its position in the reference. RMSE is the
root mean square distance over the tie points in use; nine in ten are no farther off than CE90. $confidence
Sigma is the standard deviation that the matcher states for an offset.</p>
<h2>The pair</h2>
<table>$pair</table>
$scenes
<h2>To use it</h2>
$use
<h2>How it was made</h2>
<table>$provenance</table>
</main>
<footer>Made by crosstie. Beside this page: $files.</footer>
</body>
</html>
""")

_STAGES = ("before", "affine", "field")


def report_html(registration: Registration, pictures: Pictures) -> bytes:
    """Write the report of one pair: verdict, pictures, figures, how to use the correction, provenance.

    One file with no script and nothing to load; every text that came from elsewhere is escaped.
    """
    provenance = registration.provenance
    said = headline(registration)
    page = _PAGE.substitute(
        title=escape(f"{said}: {registration.secondary_id}"),
        colour=colour(registration),
        checked=_checked(),
        headline=escape(said),
        sentences="\n".join(f"<p>{escape(text)}</p>" for text in sentences(registration)),
        pictures=_pictures(pictures),
        figures=_rows([row for row in figures(registration) if row[0] != "Made by"]),
        confidence=escape(CONFIDENCE),
        pair=_rows(
            [
                ("Reference", registration.reference_id),
                *(("File of the reference", product_href(href)) for href in registration.reference_hrefs),
                ("Secondary", registration.secondary_id),
                *(("File of the secondary", product_href(href)) for href in registration.secondary_hrefs),
            ]
        ),
        scenes=_side(pictures.scenes, "side scenes"),
        use=_use(registration),
        provenance=_rows(
            [
                ("Verdict, reasons", str(registration.estimate.verdict)),
                ("Pair, run", f"{registration.pair_key} / {registration.run_key}"),
                ("Software", ", ".join(f"{name} {version}" for name, version in provenance.versions)),
                ("Weights (sha256)", provenance.weights_sha256),
                ("Settings", provenance.settings_hash),
                ("Made", f"{provenance.created_utc:%Y-%m-%d %H:%M:%S} UTC in {provenance.seconds:.1f} s"),
            ]
        ),
        files="correction.json, tie_points.parquet, item.json, corrected.vrt, overview.png"
        + (", displacement.tif" if has_field(registration) else ""),
    )
    return page.encode()


def _pictures(pictures: Pictures) -> str:
    parts = []
    if pictures.frames:
        parts += ["<h2>Before and after</h2>", _frames(pictures.frames)]
    if pictures.overlays:
        parts += [
            "<h2>Edges of both</h2>",
            "<p>Edges of the reference are red, of the secondary cyan; where they coincide, white. The "
            "window lies where the result improves most.</p>",
            _side(pictures.overlays),
        ]
    if pictures.arrows:
        parts += [
            "<h2>Tie points</h2>",
            "<p>An arrow leads from a feature in the reference to the same feature in the secondary, drawn "
            "longer than it is. All maps have one scale, and count kilometres from the south-west corner. A "
            "cross is a point that is not in use. Arrows that are alike or change slowly are an error; those "
            "in all directions are noise. A displacement field follows the tie points it was fitted to: the "
            "top of this page says how well it predicts others.</p>",
            _side(pictures.arrows),
        ]
    return "\n".join(parts)


def _frames(frames: tuple[Picture, ...]) -> str:
    """Write images in one place, of which radio buttons choose one: the eye sees the least movement."""
    steps = [frame for frame in frames if frame.name in _STAGES]
    stage = _choice(
        "stage", "Secondary", [(step.name, step.title.removeprefix("Secondary ")) for step in steps]
    )
    show = _choice(
        "show", "Show", [("secondary", "secondary"), ("reference", "reference"), ("turns", "both in turn")]
    )
    figures = "".join(_figure(frame) for frame in frames)
    return f'<div class="look">{stage}{show}<div class="frames">{figures}</div></div>'


def _choice(name: str, legend: str, options: list[tuple[str, str]]) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="{name}" id="{name}-{value}"{"" if n else " checked"}> '
        f"{escape(text)}</label>"
        for n, (value, text) in enumerate(options)
    )
    return f"<fieldset><legend>{escape(legend)}</legend>{buttons}</fieldset>"


def _checked() -> str:
    """Selectors of the images that the radio buttons show; the reference lies on top."""
    shown = [f".look:has(#stage-{stage}:checked) .{stage}" for stage in _STAGES]
    shown += [f".look:has(#show-{value}:checked) .reference" for value in ("reference", "turns")]
    return ",\n".join(shown)


def _side(pictures: tuple[Picture, ...], kind: str = "side") -> str:
    return (
        f'<div class="{kind}">{"".join(_figure(picture) for picture in pictures)}</div>' if pictures else ""
    )


def _figure(picture: Picture) -> str:
    source = f"data:{picture.kind};base64,{base64.b64encode(picture.body).decode()}"
    return (
        f'<figure class="{escape(picture.name)}"><figcaption>{escape(picture.title)}</figcaption>'
        f'<img alt="{escape(picture.alt)}" src="{source}"></figure>'
    )


def _rows(rows: list[tuple[str, str]]) -> str:
    return "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows
    )


def _use(registration: Registration) -> str:
    parts = []
    if has_field(registration):
        parts.append(
            "<p>For the best fit, let <code>crosstie apply</code> resample the secondary once, through "
            "<code>displacement.tif</code>. Its bands are dx and dy in metres, and their sigma: the "
            "secondary at (x + dx, y + dy) shows what the reference shows at (x, y).</p>"
        )
    if registration.estimate.verdict.code is not VerdictCode.CORRECTED:
        parts.append(
            "<p>There is no correction to apply: <code>corrected.vrt</code> is the secondary as it was "
            "delivered, and the affine in <code>correction.json</code> is the identity.</p>"
        )
        return "\n".join(parts)
    a, b, c, d, e, f = registration.estimate.correction.affine
    formula = f"x' = {a!r} x + {b!r} y + {c!r}\ny' = {d!r} x + {e!r} y + {f!r}"
    parts.append(
        "<p>Open <code>corrected.vrt</code> in QGIS, GDAL or rasterio in place of the secondary: it has the "
        "same pixels at coordinates corrected by the affine (keep the secondary's file where it is).</p>"
        "<p>Or move any coordinates of the secondary, vectors for instance, in metres of "
        f'{escape(crs_name(registration))}:</p><pre tabindex="0">{escape(formula)}</pre>'
    )
    return "\n".join(parts)
