"""The explorer as a person sees it: in a real browser, live and as one file, every request recorded."""

import http.server
import re
import shutil
import threading

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

import interpolants as ip
from interpolants import explorer
from interpolants.explorer import app, report, simulation
from interpolants.explorer import page as panels

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60_000.0  # milliseconds: a slow machine starts the processes that compute within them
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium was found to open a page with")
expect.set_options(timeout=SECONDS)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1, EXCLUDE localhost"  # as after DNS rebinding
        flags = [rebound, "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*flags, "--disable-component-update"])
        yield started
        started.close()


@pytest.fixture
def page(browser):
    """A page that records its requests and its errors."""
    opened = browser.new_page(viewport={"width": 1300, "height": 950}, reduced_motion="reduce")
    opened.set_default_timeout(SECONDS)
    opened.requests, opened.faults = [], []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("dialog", lambda dialog: (opened.faults.append(dialog.message), dialog.dismiss()))
    yield opened
    opened.close()


def positions(page):
    """The first points of the panel of the SDE."""
    return page.evaluate("document.querySelectorAll('.particles .js-plotly-plot')[1].data[2].x.slice(0, 20)")


def slide(page, name, value):
    """Move a slider as a person does: an input event a step."""
    page.locator(f".particles .{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def check_particles(page):
    """Points start as noise and end at the data; the slider of w moves them, and that of time takes them back."""
    expect(page.locator(".particles .js-plotly-plot .scatterlayer .trace").first).to_be_visible()
    expect(page.locator(".particles .time-value")).to_have_text("t = 1.000")
    ends = positions(page)
    expect(page.locator(".particles .scale-value")).to_have_text("w \N{MULTIPLICATION SIGN} 1")
    slide(page, "scale", 4)
    expect(page.locator(".particles .scale-value")).to_have_text("w \N{MULTIPLICATION SIGN} 4")
    more = positions(page)
    assert more != ends
    slide(page, "time", 0)
    expect(page.locator(".particles .time-value")).to_have_text("t = 0.000")
    starts = positions(page)
    slide(page, "scale", 0)
    assert positions(page) == starts  # the same noise for every w
    assert starts not in (ends, more)
    page.locator(".particles .play").click()
    expect(page.locator(".particles .time-value")).to_have_text("t = 1.000")


def check_conversions(page, box):
    """The menus choose which conversion is shown."""
    expect(box.locator("[data-pair='velocity score'] .js-plotly-plot")).to_be_visible()
    box.locator("select.source").select_option("noise")
    box.locator("select.target").select_option("data")
    expect(box.locator("[data-pair='noise data'] .js-plotly-plot")).to_be_visible()
    expect(box.locator("[data-pair='velocity score']")).to_be_hidden()
    box.locator("select.target").select_option("noise")
    expect(box.get_by_text("Source and target are the same")).to_be_visible()


def test_the_live_page(page, tmp_path):
    with app.serving("t", "1-t", {}) as served:
        page.goto(served.url)
        verdict, alpha, sigma = page.locator("#verdict"), page.locator("#alpha input"), page.locator("#sigma input")
        expect(verdict.locator(".valid")).to_be_visible()
        expect(page.locator("#path .js-plotly-plot").first).to_be_visible()

        attack = "${alert(1)}<img src=x onerror=alert(2)>"
        alpha.fill(attack)
        expect(verdict.locator(".invalid")).to_contain_text(f"alpha: {attack!r} is not an expression")
        expect(page.locator("#path")).to_contain_text("Nothing to show")
        assert page.locator("#verdict img").count() == 0
        alpha.fill("1-t")
        with pytest.raises(ValueError, match="no path") as reason:
            ip.Path("1-t", "1-t")
        expect(verdict.locator(".invalid p")).to_have_text(str(reason.value))

        alpha.fill("sin(pi*t/2)")
        sigma.fill("cos(pi*t/2)")
        expect(verdict.locator(".valid")).to_contain_text("cos")
        expect(page.get_by_label("path", exact=True)).to_have_value("gvp")
        page.get_by_role("tab", name="Conversions").click()
        check_conversions(page, page.locator("#conversions"))
        page.get_by_role("tab", name="Formulas").click()
        assert page.locator("#formulas math").count() > 20
        page.get_by_role("tab", name="Particles").click()
        expect(page.locator("#particles small")).to_contain_text("cos(pi*t/2)")
        check_particles(page)
        page.get_by_role("tab", name="Solvers").click()
        expect(page.locator("#solvers small")).to_contain_text("cos(pi*t/2)")
        expect(page.locator("#solvers .js-plotly-plot")).to_be_visible()
        page.get_by_role("tab", name="Ledger").click()
        expect(page.locator("#ledger tbody .badge.proved")).to_have_count(31)

        page.get_by_role("tab", name="Conversions").click()
        menus = [page.locator(f"#conversions select.{role}") for role in ("source", "target")]
        for menu, quantity in zip(menus, ("noise", "data"), strict=True):
            menu.select_option(quantity)
        alpha.fill("sin(pi*t/2)**2")  # from one path to another the menus stay, and so must what they choose
        shown = page.locator("#conversions .conversion:visible")
        expect(shown.locator(".functions")).to_contain_text("2")
        expect(shown.locator(".js-plotly-plot")).to_be_visible()
        pair = f"{menus[0].input_value()} {menus[1].input_value()}"
        expect(shown).to_have_attribute("data-pair", pair)
        page.screenshot(path=tmp_path / "live.png")
    assert page.requests
    assert {re.match(r"(?:blob:)?\w+://([^/:]+)", url).group(1) for url in page.requests} == {"127.0.0.1"}
    assert page.faults == []


class EvilPage(http.server.BaseHTTPRequestHandler):
    """A page of another site."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>another site</h1>")

    def log_message(self, *_):
        pass


POST = """async ([url, body, type]) => {
    try { const answer = await fetch(url, {method: 'POST', body, headers: type ? {'Content-Type': type} : {},
        mode: type ? 'cors' : 'no-cors'}); return answer.status } catch (error) { return String(error) } }"""


def test_a_page_of_another_site_can_neither_use_it_nor_take_its_place(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), EvilPage)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    with app.serving("t", "1-t", {}) as served:
        page = browser.new_page()
        page.goto(f"http://evil.example:{site.server_port}/")
        for route in ("upload", "queue/join", "run/1"):
            page.evaluate(POST, [f"{served.url}gradio_api/{route}", "x" * 100_000, None])
            answer = page.evaluate(POST, [f"{served.url}gradio_api/{route}", "{}", "application/json"])
            assert "Failed to fetch" in str(answer)
        port = served.url.rstrip("/").rsplit(":", 1)[1]
        page.goto(f"http://evil.example:{port}/config")  # the same origin to a browser
        assert "is not 'evil.example" in page.content()
        for route in ("config", "gradio_api/queue/join", "gradio_api/run/1"):
            assert page.evaluate(POST, [f"/{route}", "{}", "application/json"]) == 421
        page.close()
    site.shutdown()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_file(page, scheme, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "linear.html"
    if not file.exists():
        explorer.write_html(ip.linear(), file)
    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())
    expect(page.locator("#panel-Path .js-plotly-plot")).to_have_count(4)
    assert page.locator(".modebar-btn[data-title*=Share]").count() == 0  # an upload
    assert page.locator(".modebar-btn[data-title*=Zoom]").count() > 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (scheme == "light")
    page.locator("#tab-Conversions").click()
    expect(page.locator("#panel-Path")).to_be_hidden()
    check_conversions(page, page.locator("#panel-Conversions"))
    page.locator("#tab-Particles").click()
    check_particles(page)
    page.locator("#tab-Ledger").click()
    expect(page.locator("#panel-Ledger tbody .badge.proved")).to_have_count(31)
    radical = page.locator("#panel-Ledger math").first.bounding_box()
    assert radical["height"] < 60 < radical["width"]  # typeset in a line, not written as a list of signs
    assert page.requests == [file.as_uri()]
    assert page.faults == []


TABS = ("Path", "Conversions", "Particles", "Solvers", "Formulas", "Ledger")
LONG = ("sin(pi*t/2)**3*(1+t**2)/2", "cos(pi*t/2)**2*(1+(1-t)**2)/2")

GAPS = """() => {
    const filled = [...document.querySelectorAll('body *')].filter((e) => e.matches('input, select, button')
        || [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
    const boxes = filled.map((e) => e.getBoundingClientRect()).filter((box) => box.width && box.height);
    boxes.sort((one, other) => one.top - other.top);
    let [end, widest] = [-scrollY, 0];
    for (const box of boxes) { widest = Math.max(widest, box.top - end); end = Math.max(end, box.bottom); }
    return widest; }"""
"""The largest height of the page on which there is neither text nor a control."""


@pytest.fixture
def phone(browser):
    opened = browser.new_page(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    opened.set_default_timeout(SECONDS)
    yield opened
    opened.close()


def check_fits(page):
    """Nothing is wider than the page or left empty, and no figure gives more room to its labels than to its curves."""
    figures = page.locator(".explorer .figure:visible")
    for number in range(figures.count()):
        expect(figures.nth(number).locator(".bglayer").first).to_be_attached()  # also where it is not scrolled to
        whole, inner = figures.nth(number).bounding_box(), figures.nth(number).locator(".nsewdrag").bounding_box()
        assert inner["width"] > 0.6 * whole["width"]
        assert inner["height"] > 0.3 * whole["height"]
    assert page.evaluate("document.scrollingElement.scrollWidth") == 390
    assert page.evaluate(GAPS) < 110
    ends = page.locator(".functions td:visible:not(:first-child)")
    boxes = [ends.nth(number).bounding_box() for number in range(ends.count())]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)


@pytest.mark.parametrize("texts", [("t", "1-t"), LONG])
def test_the_file_fits_a_phone(phone, texts, tmp_path):
    path, linear, names = ip.Path(*texts), ip.linear(), ("Euler", "Heun", *("multistep 3, velocity",) * 5)
    measured = tuple(simulation.Convergence(name, 1, 0.1 ** np.arange(6), -1.0) for name in names)
    errors, file = simulation.Errors(measured, 1e-8, (0, 1)), tmp_path / "page.html"
    file.write_text(panels.document(report.report(path, "sigma"), ip.prove(linear), simulation.flow(linear), errors))
    phone.goto(file.as_uri())
    for name in TABS:
        phone.locator(f"#tab-{name}").click()
        check_fits(phone)


def test_the_live_page_fits_a_phone(phone):
    with app.serving("t", "1-t", {}) as served:
        phone.goto(served.url)
        for alpha, sigma in (("t", "1-t"), LONG):
            phone.locator("#alpha input").fill(alpha)
            phone.locator("#sigma input").fill(sigma)
            expect(phone.locator("#verdict .valid")).to_contain_text("sin" if alpha in LONG else "1")
            expect(phone.locator("#path .js-plotly-plot")).to_have_count(4)
            check_fits(phone)
            phone.get_by_role("tab", name="Conversions").click()
            expect(phone.locator("#conversions .js-plotly-plot:visible")).to_have_count(1)
            check_fits(phone)
            phone.get_by_role("tab", name="Path").click()
        phone.locator("#panels .overflow-menu > button").click()
        phone.get_by_role("button", name="Ledger").click()
        expect(phone.locator("#ledger .badge.proved").first).to_be_visible()
        check_fits(phone)
