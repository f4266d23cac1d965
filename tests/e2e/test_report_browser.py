"""The report's item browser in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dft_eval.report import build_report
from dft_eval.results import ItemScore, summarise, write_items
from tests.conftest import not_run

pytestmark = pytest.mark.needs("chromium")
LABELS = ("base", "sft", "dft")
ATTACK = "</script><script>document.title='taken over'</script><b>bold</b>"
N = 120


def write_run(folder: Path, label: str, seed: int | None = None) -> Path:
    """dft wins q1 to q20 against sft and loses q21 to q26; q119 is unscored.

    dft of seed 2 is always wrong.
    """
    from PIL import Image

    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (60, 40), "#3a7").save(folder / "pictures" / "p.png")
    items, completions = [], []
    for n in range(N):
        right = {"base": n % 5 == 0, "sft": 20 < n < 70, "dft": 0 < n <= 20 or 26 < n < 70}[label]
        right = right and (label, seed) != ("dft", 2)
        items.append(
            ItemScore(
                id=f"q{n}",
                score=None if n == 119 and label == "dft" else float(right),
                reason="right answer" if right else f"wrong answer: {n}",
                category=("algebra", "geometry")[n % 2],
                pictures=("pictures/p.png",) if n == 3 else (),
            )
        )
        text = f"The answer to {n} is {n * n if right else n + 1}."
        cut = label == "base" and n % 3 == 0
        completions.append(
            {
                "id": f"q{n}",
                "prompt": f"What is {n} squared? {ATTACK if n == 7 else ''}",
                "completion": f"{text} {ATTACK if n == 7 else ''}",
                "finish_reason": "length" if cut else "stop",
                "n_tokens": 160 if cut else 12,
            }
        )
    write_items(folder / "squares.chat.items.jsonl", items)
    lines = "".join(json.dumps(row) + "\n" for row in completions)
    (folder / "squares.chat.completions.jsonl").write_text(lines)
    row = {"benchmark": "squares", "metric": "accuracy", "items": "squares.chat.items.jsonl"}
    row |= {"harness": "test", "prompt_style": "chat", "decoding": {"max_new_tokens": 160}}
    row |= summarise(items)
    head = {"schema_version": 1, "model": f"models/{label}", "model_sha256": None, "label": label}
    training = None if seed is None else {"objective": label, "seed": seed}
    document = {**head, "training": training, "results": [row]}
    (folder / "results.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    runs = [write_run(folder / label, label) for label in LABELS]
    return build_report(runs, folder / "out").html.as_uri()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """base, and sft and dft of three training seeds."""
    folder = tmp_path_factory.mktemp("seeded")
    runs = [write_run(folder / "base", "base")]
    runs += [write_run(folder / f"{label}{n}", label, n) for label in LABELS[1:] for n in range(3)]
    return build_report(runs, folder / "out").html.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        not_run("chromium not found. Install it: `bash scripts/toolchains.sh`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, report: str) -> Iterator[Any]:
    errors: list[str] = []
    page_ = browser.new_page()
    page_.on("pageerror", lambda error: errors.append(str(error)))
    page_.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page_.goto(report)
    yield page_
    page_.close()
    assert errors == []


def count(page: Any) -> str:
    return str(page.locator("#browser output").inner_text())


def ids(page: Any) -> list[str]:
    return list(page.locator("#browser .row .id").all_inner_texts())


def test_items_are_filtered_by_outcome_category_and_words(page: Any) -> None:
    """DFT against SFT comes first: 20 won, 6 lost, 1 unscored, 93 tied."""
    assert count(page) == "120 of 120 items"
    assert page.locator("[name=pair] option").first.inner_text() == "dft against sft"
    for outcome, n in (("won", 20), ("lost", 6), ("unscored", 1), ("tied", 93)):
        page.select_option("[name=outcome]", outcome)
        assert count(page) == f"{n} of 120 items"
    page.select_option("[name=outcome]", "lost")
    assert ids(page) == [f"q{n}" for n in range(21, 27)]
    page.select_option("[name=category]", "geometry")
    assert ids(page) == ["q21", "q23", "q25"]
    page.fill("[name=query]", "529")  # 23 squared, which only sft says
    assert ids(page) == ["q23"]


def test_all_items_can_be_reached_and_sorted(page: Any) -> None:
    assert len(ids(page)) == 50
    page.get_by_text("Show more").click()
    page.get_by_text("Show more").click()
    assert len(ids(page)) == 120
    assert not page.get_by_text("Show more").is_visible()
    page.select_option("[name=sort]", "difference")
    assert set(ids(page)[:26]) == {f"q{n}" for n in range(1, 27)}


def test_an_item_shows_its_completions_with_their_difference(page: Any) -> None:
    page.locator(".row", has_text="q3").first.click()
    detail = page.locator(".detail")
    assert "What is 3 squared?" in detail.inner_text()
    assert detail.locator("del").all_inner_texts() == ["4."]
    assert detail.locator("ins").all_inner_texts() == ["9."]
    assert detail.locator(".outcome").all_inner_texts() == ["✗ wrong", "✗ wrong", "✓ right"]
    assert "cut at the token limit" in detail.inner_text()
    assert detail.locator("img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 60


def test_an_item_has_an_address(page: Any, browser: Any, report: str) -> None:
    page.locator(".row", has_text="q42").first.click()
    address = page.url
    assert address.endswith("#item/squares%20(chat)/q42")
    tab = browser.new_page()
    tab.goto(f"{report}#item/squares%20(chat)/q97")
    assert "What is 97 squared?" in tab.locator(".detail").inner_text()
    tab.goto(address)
    assert "What is 42 squared?" in tab.locator(".detail").inner_text()
    tab.close()


def test_hostile_completions_stay_text(page: Any) -> None:
    page.locator(".row", has_text="q7").first.click()
    assert ATTACK in page.locator(".detail").inner_text()
    assert page.title() == "Comparison of runs"
    assert page.locator(".detail b").count() == 0


def test_seeds_are_pooled_with_one_completion_per_outcome(browser: Any, seeded: str) -> None:
    """q3: dft is right with seeds 0 and 1, sft with none: won. q22 is lost: sft 3 of 3, dft 0."""
    page_ = browser.new_page()
    errors: list[str] = []
    page_.on("pageerror", lambda error: errors.append(str(error)))
    page_.goto(seeded)
    for outcome, n in (("won", 20), ("lost", 49)):
        page_.select_option("[name=outcome]", outcome)
        assert count(page_) == f"{n} of 120 items"
    page_.select_option("[name=outcome]", "won")
    row = page_.locator(".row", has_text="q3").first
    assert [sign.strip() for sign in row.locator(".sign").all_inner_texts()] == ["✗", "0/3", "2/3"]
    row.click()
    detail = page_.locator(".detail")
    assert detail.locator(".outcome").all_inner_texts() == [
        "✗ wrong",
        "0 of 3 seeds right",
        "2 of 3 seeds right",
    ]
    dft = detail.locator(".answer").nth(2)
    assert "seed 0 ✓, seed 1 ✓, seed 2 ✗" in dft.inner_text()
    assert dft.locator("h5").all_inner_texts() == ["Seed 0: right", "Seed 2: wrong"]
    assert dft.locator("ins").all_inner_texts() == ["9."]
    assert "The answer to 3 is 4." in dft.locator("pre").nth(1).inner_text()
    # A stroke a seed: sft, dft, and the three differences.
    assert page_.locator(".track s").count() == 15
    assert errors == []
    page_.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["report", "seeded"])
def test_a_phone_needs_no_scrolling(
    browser: Any, scheme: str, which: str, request: pytest.FixtureRequest
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page_ = context.new_page()
    page_.goto(f"{request.getfixturevalue(which)}#item/squares%20(chat)/q3")
    assert page_.evaluate("document.documentElement.scrollWidth") == 390
    background = page_.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    context.close()
