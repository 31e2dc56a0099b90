"""ComfyUI's web page in a headless Chrome or Chromium: what a person sees there, and clicks.

Playwright drives the browser that the system has; none is ever downloaded.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from virtual_environment import ROOT

GRAPHS = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((ROOT / "workflows").glob("*.json"))
}
NOTE = "MarkdownNote"
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
)
SIZE = {"width": 1920, "height": 1080}
ANSWER_LIMIT_S = 120  # for whatever the page does at once; minutes because the machine may be busy
RUN_LIMIT_S = 300
READY = "() => !!(window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow)"
# The boxes that a person sees, in the units of the graph. In the new rendering a node is an element of the
# page, whose height follows its content; in the classic one it is drawn on a canvas.
BOXES = """() => app.graph.nodes.map((node) => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`)
    const [x, y, width, height] = node.boundingRect
    const shown = element ? [element.offsetWidth, element.offsetHeight] : [width, height]
    return {type: node.type, title: node.title, box: [x, y, ...shown]}
})"""
GROUPS = "() => app.graph.groups.map((group) => ({title: group.title, box: [...group.pos, ...group.size]}))"
VISIBLE = """([left, top]) => {
    const {scale, offset} = app.canvas.ds, {clientWidth, clientHeight} = app.canvas.canvas
    const at = (x, y) => [x / scale - offset[0], y / scale - offset[1]]
    return [...at(left, top), (clientWidth - left) / scale, (clientHeight - top) / scale]
}"""
MENUS = [60, 135]  # pixels that the page's menus cover on the left and at the top
SEARCH = "() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')"
RUN = "button[data-testid=queue-button], [data-testid=queue-button] button"  # newer frontends name the button
WATCH = """() => {
    window.ended = null
    for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
        app.api.addEventListener(kind, (event) => { window.ended = {kind, ...event.detail} })
}"""
SET_WIDGETS = """([type, values]) => {
    const nodes = app.graph.nodes.filter((node) => node.type === type)
    for (const node of nodes)
        for (const [name, value] of Object.entries(values))
            node.widgets.find((widget) => widget.name === name).value = value
    return nodes.length
}"""


def find_browser(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the Chrome or Chromium of this system, None if there is none; CHROME_PATH comes first."""
    named = environ.get("CHROME_PATH")
    found = [shutil.which(command, path=environ.get("PATH")) for command in COMMANDS]
    for place in [named] if named else [*found, *PLACES]:
        if place and Path(place).is_file():
            return Path(place)
    return None


@contextlib.contextmanager
def open_browser(executable: Path) -> Iterator[Any]:
    """Run a headless browser; the value is Playwright's Browser."""
    from playwright.sync_api import sync_playwright  # late: only `dev.py test` installs it

    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root has none
        browser = playwright.chromium.launch(executable_path=executable, args=options)
        yield browser
        browser.close()


class Window:
    """A window of 1920 x 1080 in which every question and every wait has a deadline.

    Args:
        browser: Playwright's Browser.
    """

    def __init__(self, browser: Any):
        """Open an empty page."""
        self.page = browser.new_page(viewport=SIZE)
        self.page.set_default_timeout(1000 * ANSWER_LIMIT_S)

    def close(self) -> None:
        """Close the window."""
        self.page.close()

    def ask(self, function: str, argument: Any = None) -> Any:
        """Call a JavaScript function in the page, once, and return what it returns.

        Unlike Playwright's `evaluate` it has a deadline. A page that hangs is closed, so that the questions
        of later tests fail at once.

        Raises:
            AssertionError: if the function does not return within `ANSWER_LIMIT_S`.
        """
        once = f"async ([argument]) => ({{answer: (await ({function})(argument)) ?? null}})"
        complaint = f"the page did not answer {function}"
        try:
            return self._wait_for(once, [argument], ANSWER_LIMIT_S, complaint)["answer"]
        except AssertionError:
            self.page.close()
            raise

    def wait_for(
        self, function: str, argument: Any = None, *, what: str, limit_s: float = ANSWER_LIMIT_S
    ) -> Any:
        """Wait until a JavaScript function returns something true in the page, and return that.

        Args:
            function: called again and again.
            argument: its argument.
            what: what should happen, for the message.
            limit_s: seconds until it must have happened.

        Raises:
            AssertionError: if it does not happen in time; the message says what did not.
        """
        return self._wait_for(function, argument, limit_s, f"the page did not show {what}")

    def _wait_for(self, function: str, argument: Any, limit_s: float, complaint: str) -> Any:
        from playwright.sync_api import TimeoutError as TooLate  # late: only `dev.py test` installs it

        try:
            return self.page.wait_for_function(function, arg=argument, timeout=1000 * limit_s).json_value()
        except TooLate as error:
            raise AssertionError(f"{complaint} within {limit_s:g} s") from error


class ComfyPage(Window):
    """The web page of a ComfyUI.

    Args:
        browser: Playwright's Browser.
        url: address of the server.
        new_rendering: whether nodes are drawn as elements ("Nodes 2.0") instead of on a canvas.
    """

    def __init__(self, browser: Any, url: str, *, new_rendering: bool = False):
        """Open the page as somebody who has seen the tutorial."""
        super().__init__(browser)
        self.new_rendering = new_rendering
        settings = {
            "Comfy.TutorialCompleted": True,
            "Comfy.VueNodes.Enabled": new_rendering,
            "Comfy.Minimap.Visible": False,
            "Comfy.NodeSearchBoxImpl.FollowCursor": False,  # else a node that was found waits for a click
        }
        self.page.request.post(f"{url}/api/settings", data=settings)
        self.page.goto(url)
        self.wait_for(READY, what="a graph after the start")

    def load(self, graph: dict, name: str) -> None:
        """Open a graph as the page opens a file, and wait until its nodes are drawn."""
        self.ask("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])
        self.wait_until_drawn()

    def wait_until_drawn(self) -> None:
        """Wait until no node changes its size any more.

        Raises:
            AssertionError: if some still do after `ANSWER_LIMIT_S`; the message names them.
        """
        deadline, before = time.monotonic() + ANSWER_LIMIT_S, None
        while before != (boxes := self.boxes()):
            changing = ", ".join(named(box) for box in boxes if box not in (before or []))
            assert time.monotonic() < deadline, f"these nodes still change their size: {changing}"
            before = boxes
            self.page.wait_for_timeout(500)

    def boxes(self) -> list[dict]:
        """Return type, title and box (x, y, width, height, title included) of every node."""
        return self.ask(BOXES)

    def groups(self) -> list[dict]:
        """Return title and box of every group."""
        return self.ask(GROUPS)

    def visible_area(self) -> list[float]:
        """Return the box (x, y, width, height) of the part of the graph that no menu covers."""
        return self.ask(VISIBLE, MENUS)

    def fit(self) -> None:
        """Zoom out until the whole graph is in sight."""
        self.ask("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(1000)  # the view moves there for a third of a second

    def set_widgets(self, short: Mapping[str, Mapping[str, Any]]) -> None:
        """Set widgets of all nodes of a type: type -> name -> value; types that are not there are skipped."""
        for kind, values in short.items():
            self.ask(SET_WIDGETS, [kind, dict(values)])

    def found(self, words: str, *, choose: bool = False) -> list[str]:
        """Return the names of the nodes that the search for nodes lists for some words, best first.

        Args:
            words: what is typed.
            choose: whether the first node is then added to the graph.
        """
        self.ask(SEARCH)
        box = self.page.get_by_role("search").locator("input[role=combobox]")  # not those of a preview
        box.fill(words)
        options = self.page.get_by_role("option")
        self.page.wait_for_timeout(600)  # the search waits for the next key
        options.first.wait_for()
        names = [
            text.partition("\n")[0].strip() for text in options.all_inner_texts()
        ]  # without the category
        self.page.keyboard.press("Enter" if choose else "Escape")
        box.wait_for(state="hidden")
        return names

    def queue(self) -> None:
        """Press Run."""
        self.ask(WATCH)
        self.page.locator(RUN).first.click()

    def ending(self) -> dict:
        """Wait for the end of the run and return the event: its kind and the details the server sent."""
        return self.wait_for("() => window.ended", what="the end of the run", limit_s=RUN_LIMIT_S)


def overlap(one: dict, other: dict) -> bool:
    """Return whether two boxes have a common part."""
    (x, y, w, h), (x2, y2, w2, h2) = one["box"], other["box"]
    return x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h


def overlapping(things: list[dict]) -> list[tuple[str, str]]:
    """Return the pairs of nodes, or of groups, of which one covers a part of the other."""
    return [(named(a), named(b)) for a, b in combinations(things, 2) if overlap(a, b)]


def named(thing: dict) -> str:
    """Return title and rounded box of a node or group, for messages."""
    return f"{thing['title']} {[round(value) for value in thing['box']]}"
