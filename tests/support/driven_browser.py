"""Pages in Chromium as a person uses them: by keyboard, in light and dark, on a screen and on a phone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from playwright.sync_api import Browser, ElementHandle, Page

Scheme = Literal["light", "dark"]

SERIOUS = ("serious", "critical")

AROUND_PX = 6
"""A ring of focus is drawn around what has it, this far out at most."""

SEEN_CONTRAST = 3.0
"""Between what has the focus and the same without it: WCAG 2.2, 1.4.11 and 2.4.13."""

CONTROLS = """() => [...document.querySelectorAll(
    'a[href], button, input, select, textarea, summary, [tabindex]')]
    .filter(one => one.tabIndex >= 0 && one.checkVisibility({visibilityProperty: true}))"""
"""All that a keyboard must reach, in the order of the page."""

KINDS = """all => all.map(one => {
    const path = [];
    for (let at = one; at !== document.body; at = at.parentElement)
        path.unshift(at.tagName.toLowerCase() + [...at.classList].map(name => '.' + name).join(''));
    return path.join(' ');
})"""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a page is shown on."""

    width_px: int
    scheme: Scheme
    height_px: int = 900


@contextmanager
def driven(executable: str) -> Iterator[Browser]:
    """Start a browser; no other event loop can run in this thread until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, screen: Screen) -> Iterator[Page]:
    """Open a page in a session of its own."""
    context = browser.new_context(
        viewport={"width": screen.width_px, "height": screen.height_px},
        color_scheme=screen.scheme,
        reduced_motion="reduce",
    )
    try:
        page = context.new_page()
        page.goto(url)
        yield page
    finally:
        context.close()


def serious_faults(page: Page) -> list[str]:
    """What axe calls serious or critical: the rule, how many elements, and the first of them."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}), {len(fault['nodes'])} times: {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in SERIOUS
    ]


def overflow_px(page: Page) -> int:
    """How far the page itself scrolls sideways."""
    wide: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide


def keyboard_faults(page: Page) -> list[str]:
    """Walk through all controls by Tab: which are not reached, out of order, or without a ring that is seen.

    The ring is looked at once for each kind of control: the same elements with the same classes down to it.
    """
    controls = page.evaluate_handle(CONTROLS)
    kinds: list[str] = page.evaluate(KINDS, controls)
    faults, looked_at = [], set()
    for number, kind in enumerate(kinds):
        page.keyboard.press("Tab")
        at: int = page.evaluate("all => all.indexOf(document.activeElement)", controls)
        if at != number:
            where: str = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
            return [*faults, f"Tab {number + 1} of {len(kinds)} leads to control {at + 1}: {where}"]
        if kind in looked_at:
            continue
        looked_at.add(kind)
        one = controls.get_property(str(number)).as_element()
        assert one is not None
        if not _ring_is_seen(page, one):
            faults.append(f"no ring is seen around {kind}")
    return faults


def _ring_is_seen(page: Page, one: ElementHandle) -> bool:
    """Whether enough pixels around an element differ with and without focus: a line along it at least."""
    box = one.bounding_box()
    size = page.viewport_size
    assert box is not None
    assert size is not None
    left, top = max(box["x"] - AROUND_PX, 0), max(box["y"] - AROUND_PX, 0)
    right = min(box["x"] + box["width"] + AROUND_PX, size["width"])
    bottom = min(box["y"] + box["height"] + AROUND_PX, size["height"])
    if right <= left or bottom <= top:
        return False
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    focused = _luminance(page.screenshot(clip=clip))
    one.evaluate("one => one.blur()")  # Tab goes on from here all the same
    plain = _luminance(page.screenshot(clip=clip))
    low, high = np.minimum(focused, plain), np.maximum(focused, plain)
    return int(((high + 0.05) / (low + 0.05) >= SEEN_CONTRAST).sum()) >= max(clip["width"], clip["height"])


def _luminance(png: bytes) -> NDArray[np.float64]:
    """Relative luminance of each pixel (WCAG 2.2)."""
    with Image.open(io.BytesIO(png)) as image:
        share = np.asarray(image.convert("RGB")) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])
