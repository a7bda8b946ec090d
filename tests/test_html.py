"""Reports as pages: one file, whose names are names, in a real browser where there is one."""

import shutil

import pytest
from pages import Page
from sweeps import create_sweep, ended

from experiments.__main__ import main
from experiments.report import contents
from experiments.sweep.experiment import Experiment
from experiments.sweep.grid import grid

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

EVIL = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)> & \"'"


def page_of(sweep):
    from experiments.report.html import as_html

    return as_html(contents.of_sweep(sweep, curves=True))


@pytest.fixture
def three_seeds(tmp_path):
    """Of Table 3 one row is done, with learning curves."""
    sweep = create_sweep(tmp_path / "run", seeds=3)
    for seed in range(3):
        ended(sweep, "0.25x-g8-noshuffle", seed, 50.0, 30.0 + seed)
        ended(sweep, "0.25x-g8", seed, 51.0, 27.9 + 1.1 * seed)
    return sweep


def test_a_page_is_one_file_with_all_that_a_report_says(three_seeds, tmp_path, capsys):
    arguments = ["report", "--workdir", str(three_seeds.directory), "--format", "html"]
    assert main([*arguments, "--output", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text())
    assert page.tags["svg"] == 3
    assert page.tags["details"] == 12
    assert max(page.ids.values()) == 1
    within = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in within} <= page.ids.keys()
    assert set(page.links) - set(within) == {"data:,"}
    text = " ".join(page.texts)
    assert "31.00 ± 2.48 n = 3, paper 56.5" in text  # 4.3027 / sqrt(3)
    assert "+2.00 ± 0.25 n = 3, paper 3.8" in text
    assert "0.25x-g8-noshuffle - 0.25x-g8" in page.texts
    assert "A reduced budget: digits in place of ImageNet, 10 of 240 epochs" in text
    assert str(tmp_path) not in page.source


def test_whatever_things_are_called_is_text(tmp_path):
    cells = grid(
        {"network.groups": (1, 3)}, row=lambda groups: EVIL, column=lambda groups: f"{groups}{EVIL}"
    )
    mine = Experiment("mine", EVIL, "", None, cells, remarks=(EVIL,), difference=(f"1{EVIL}",) * 2)
    sweep = create_sweep(tmp_path, name=mine, seeds=1)
    for cell in cells:
        ended(sweep, cell.name, 0, 40.0, 30.0, commit=EVIL, processor=EVIL)
    page = Page(page_of(sweep))
    assert page.tags["script"] == 1  # our own
    assert page.tags["img"] == 0
    assert page.texts.count(EVIL) >= 3
    assert page.source.count("alert(1)") == page.source.count("&lt;script&gt;alert(1)") + (
        page.source.count("onerror=alert(1)&gt;")
    )


def test_without_matplotlib_a_page_is_a_clear_error(three_seeds, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = ["report", "--workdir", str(three_seeds.directory), "--format", "html"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "error: an HTML report needs matplotlib: pip install -e '.[plot]'\n"
    )


FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


@pytest.fixture
def browser(tmp_path):
    """Opens a page in Chromium, in a window of some width, light or dark."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    places = shutil.which("chromium"), shutil.which("chromedriver")
    if None in places:
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    options.binary_location = places[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(places[1]))

    def show(page, width, scheme, fragment=""):
        path = tmp_path / "page.html"
        path.write_text(page)
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get("about:blank")
        driver.get(f"file://{path}{fragment}")
        return driver

    with driver:
        yield show


# Relative luminances of a text and of what is behind it, as WCAG 2 has them.
CONTRAST = """
const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = (rgb) => {
  const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!colour.endsWith(", 0)")) return colour;
  }
};
const bad = [];
for (const e of document.querySelectorAll("h1, h2, h3, p, a, small, td, th, dt, dd, .verdict")) {
  const [a, b] = [getComputedStyle(e).color, behind(e)].map(light).sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(e.outerHTML.slice(0, 80));
}
return bad;
"""


def test_in_a_browser(three_seeds, browser):
    """On a phone and on a desk, in light and in dark."""
    page = page_of(three_seeds)
    for width in (375, 1280):
        for scheme in ("light", "dark"):
            driver = browser(page, width, scheme)
            assert driver.get_log("browser") == []
            said = (
                "const page = document.documentElement;"
                "return [innerWidth, page.scrollWidth, page.clientWidth]"
            )
            inner, needed, given = driver.execute_script(said)
            assert (inner, needed) == (width, given)
            assert driver.find_element("css selector", "table.results").is_displayed()
            figures = driver.find_elements("css selector", "figure svg")
            assert len(figures) == 3
            assert all(each.is_displayed() and each.size["height"] > 100 for each in figures)
            assert driver.execute_script(CONTRAST) == []


def test_a_page_sorts_and_opens_details(three_seeds, browser):
    driver = browser(page_of(three_seeds), 1280, "light")

    def first():
        return driver.find_element("css selector", ".sortable tbody th").text

    error = driver.find_element("xpath", "//button[text()='error, %']")
    error.click()
    assert first() == "0.25x-g8"
    error.send_keys("\ue007")  # the Enter key
    assert first() == "0.25x-g8-noshuffle"
    heading = driver.find_element("css selector", "[aria-sort]")
    assert heading.get_attribute("aria-sort") == "descending"
    details = driver.find_elements("css selector", "details")
    assert not any(each.get_attribute("open") for each in details)
    driver.find_element("link text", "31.00 ± 2.48").click()
    (opened,) = (each for each in details if each.get_attribute("open"))
    assert "recipe.learning_rate" in opened.text
    assert driver.get_log("browser") == []
