"""The page in a browser, in front of the real server."""

import pytest

from tests.gateway import browser as chromium
from tests.gateway.page import Page
from tests.gateway.running import Gateway, wait_for
from tests.server.calls import metrics
from triptych.model_files import ModelFiles

pytestmark = pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))

IN_FLIGHT = ("triptych_images_in_flight", "unet_loop")
STEPS = ("triptych_steps_total", "unet_loop")


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    profile = tmp_path_factory.mktemp("profile")
    with Gateway(server.grpc) as gateway, chromium.Browser(profile) as browser:
        browser.look_like()
        page = Page(browser, gateway.url)
        wait_for(lambda: page["num_inference_steps"].get_property("value"))
        yield page


def test_a_picture_with_its_previews(page, repository):
    page.draw(prompt="a red circle", num_inference_steps="20", seed="7")
    if ModelFiles.load(repository / "unet_loop" / "1").latent_rgb:
        wait_for(lambda: page.all(".coming .preview:not([hidden])"), 30)
        assert page.one(".coming .preview").get_property("naturalWidth") == 32
    wait_for(lambda: page.all(".card:not(.coming)"), 60)
    size = page.values("width")[0]
    wait_for(lambda: str(page.one(".card .picture img").get_property("naturalWidth")) == size)
    assert page.browser.complaints() == []


def test_words_that_the_model_does_not_know_are_said_beside_the_picture(page, repository):
    if not (repository / "tokenizer" / "1" / "words.txt").is_file():
        pytest.skip("this model's files do not say its words")
    there = len(page.all(".card:not(.coming)"))
    page.draw(prompt="a photo of a red dog", num_inference_steps="1", seed="7")
    wait_for(lambda: len(page.all(".card:not(.coming)")) == there + 1, 60)
    warning = page.one(".card .warnings li")
    assert warning.is_displayed()
    assert warning.text == "Prompt: this model does not know 'photo', 'dog'"


def test_cancel_ends_the_work_in_the_server(page, server):
    page.draw(prompt="a red circle", num_inference_steps="200", count="2")
    wait_for(lambda: metrics(server.metrics)[IN_FLIGHT] == 2, 30)
    wait_for(lambda: any("of 200" in one.text for one in page.all(".steps")), 30)
    page["cancel"].click()
    wait_for(lambda: metrics(server.metrics)[IN_FLIGHT] == 0, 5)
    steps = metrics(server.metrics)[STEPS]
    wait_for(lambda: not page.all(".coming"))
    assert metrics(server.metrics)[STEPS] == steps


def test_pictures_on_their_way_go_on_after_a_reload(page, server):
    there = len(page.all(".card:not(.coming)"))
    page.draw(prompt="a red circle", num_inference_steps="15", count="2", seed="7")
    wait_for(lambda: metrics(server.metrics)[IN_FLIGHT] == 2, 30)
    page.reload()
    wait_for(lambda: len(page.all(".card:not(.coming)")) == there + 2, 120)
    seeds = [one.text.partition(",")[0] for one in page.all(".card .told")]
    assert seeds[:2] == ["seed 7", "seed 8"]
    wait_for(lambda: metrics(server.metrics)[IN_FLIGHT] == 0)
