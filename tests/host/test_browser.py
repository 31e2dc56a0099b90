"""A window asks once, waits no longer than it says, and closes even when its page hangs."""

import pytest

import browser as browsers
from browser import Window

pytestmark = pytest.mark.host


@pytest.fixture
def window(browser):
    opened = Window(browser)
    yield opened
    opened.close()


def test_a_question_is_asked_once_whatever_the_answer(window):
    assert window.ask("([one, other]) => one + other", [1, 2]) == 3
    assert window.ask("async () => { window.asked = (window.asked ?? 0) + 1 }") is None
    assert window.ask("() => window.asked") == 1


def test_what_does_not_happen_in_time_is_named(window):
    with pytest.raises(AssertionError, match="the page did not show a title within 0.1 s"):
        window.wait_for("() => document.title", what="a title", limit_s=0.1)


def test_a_page_that_hangs_is_closed_so_that_later_questions_fail_at_once(window, monkeypatch):
    monkeypatch.setattr(browsers, "ANSWER_LIMIT_S", 1)
    with pytest.raises(AssertionError, match=r"the page did not answer \(\) => { while .* within 1 s"):
        window.ask("() => { while (true) {} }")
    with pytest.raises(Exception, match="has been closed"):
        window.ask("() => 1")
