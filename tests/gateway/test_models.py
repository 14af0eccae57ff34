"""A server with several models, through each of the APIs and on the page."""

import json

import httpx
import openai
import pytest
from selenium.webdriver.support.select import Select

from tests.gateway import browser as chromium
from tests.gateway.running import wait_for
from tests.gateway.test_keys import write
from triptych.commands import gateway as command
from triptych.gateway import webui_facts
from triptych.gateway.keys import Keys


@pytest.fixture
def several(start, triton):
    """A gateway of the test's own, as it remembers the WebUI's choice."""
    triton.models = ["ink", "sd_ensemble", "oil"]
    return start()


@pytest.fixture
def webui(several):
    with httpx.Client(base_url=f"{several.url}/sdapi/v1", timeout=30) as client:
        yield client


def test_openais_model_chooses(several, triton):
    client = openai.OpenAI(base_url=f"{several.url}/v1", api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == ["sd_ensemble", "ink", "oil"]
    assert client.models.retrieve("oil").id == "oil"
    client.images.generate(prompt="x", model="ink", n=2)
    client.images.generate(prompt="x")
    assert triton.asked_of == ["ink", "ink", "sd_ensemble"]
    told = "there is no model 'inc'; there is sd_ensemble, ink, oil; other names by --model-alias"
    with pytest.raises(openai.NotFoundError, match=told):
        client.images.generate(prompt="x", model="inc")


def test_an_alias_may_be_of_any_model(start, triton):
    triton.models = ["ink", "sd_ensemble"]
    aliases = dict([command._alias("dall-e-2=ink"), command._alias("dall-e-3")])
    gateway = start(model_aliases=aliases)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    for name in aliases:
        client.images.generate(prompt="x", model=name)
    assert triton.asked_of == ["ink", "sd_ensemble"]


def test_the_webuis_override_chooses_for_one_request(webui, triton):
    titles = [one["title"] for one in webui.get("/sd-models").json()]
    assert titles == ["sd_ensemble", "ink", "oil"]
    asked = {"prompt": "x", "override_settings": {"sd_model_checkpoint": "oil"}}
    answer = webui.post("/txt2img", json=asked).json()
    assert '"sd_model_name": "oil"' in answer["info"]
    webui.post("/txt2img", json={"prompt": "x"})
    assert triton.asked_of == ["oil", "sd_ensemble"]


def test_the_webuis_option_chooses_for_all_that_follow(webui, triton):
    assert webui.post("/options", json={"sd_model_checkpoint": "ink"}).status_code == 200
    assert webui.get("/options").json()["sd_model_checkpoint"] == "ink"
    webui.post("/txt2img", json={"prompt": "x"})
    assert triton.asked_of == ["ink"]
    refused = webui.post("/options", json={"sd_model_checkpoint": "oil", "sd_vae": "x"})
    assert refused.status_code == 400
    assert webui.get("/options").json()["sd_model_checkpoint"] == "ink"


def test_the_webuis_option_is_the_callers_own(webui, triton, monkeypatch):
    """A caller is known by the address, as for progress; the newest choices are kept."""
    monkeypatch.setattr(webui_facts, "MOST_CHOICES", 2)
    ada, bob, eve = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2, 3))

    def chosen(who):
        return webui.get("/options", headers=who).json()["sd_model_checkpoint"]

    for who, model in ((ada, "ink"), (bob, "oil")):
        webui.post("/options", json={"sd_model_checkpoint": model}, headers=who)
    assert [chosen(who) for who in (ada, bob, eve)] == ["ink", "oil", "sd_ensemble"]
    webui.post("/txt2img", json={"prompt": "x"}, headers=bob)
    webui.post("/txt2img", json={"prompt": "x"}, headers=eve)
    assert triton.asked_of == ["oil", "sd_ensemble"]
    webui.post("/options", json={"sd_model_checkpoint": "oil"}, headers=eve)
    assert [chosen(who) for who in (ada, bob, eve)] == ["sd_ensemble", "oil", "oil"]


def test_a_key_chooses_its_own_models_alone_and_for_itself(start, triton, tmp_path):
    triton.models = ["ink", "sd_ensemble"]
    entries = {"name": "ada", "models": ["sd_ensemble"]}, {"name": "bob"}
    url = start(keys=Keys(write(tmp_path / "keys.json", *entries))).url + "/sdapi/v1/options"

    def choose(key):
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.post(url, json={"sd_model_checkpoint": "ink"}, headers=headers)
        return answer.status_code, httpx.get(url, headers=headers).json()["sd_model_checkpoint"]

    assert choose("bob's") == (200, "ink")
    assert choose("ada's") == (403, "sd_ensemble")


@pytest.mark.parametrize(
    ("models", "there", "listed"),
    [
        (["oil", "ink", "none"], ["ink", "sd_ensemble", "oil"], ["oil", "ink"]),
        (["oil", "sd_ensemble"], ["ink", "sd_ensemble", "oil"], ["sd_ensemble", "oil"]),
        (["oil", "ink"], ["ink", "oil"], ["ink", "oil"]),
    ],
)
def test_a_key_is_shown_its_own_models_and_draws_with_their_first(
    start, triton, tmp_path, models, there, listed
):
    triton.models = there
    keys = Keys(write(tmp_path / "keys.json", {"name": "ada", "models": models}))
    url = start(keys=keys, model_aliases={"dall-e-3": None, "gpt": "ink", "gone": "lost"}).url
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer ada's"}, timeout=30) as ada:
        names = [*listed, "dall-e-3", *["gpt"] * ("ink" in listed)]
        assert [one["id"] for one in ada.get("/v1/models").json()["data"]] == names
        titles = [one["title"] for one in ada.get("/sdapi/v1/sd-models").json()]
        assert titles == ada.get("/api/models").json()["models"] == listed
        assert ada.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == listed[0]
        drawn = ada.post("/v1/images/generations", json={"prompt": "x", "model": "dall-e-3"}).json()
        assert drawn["data"][0]["settings"].get("model", "sd_ensemble") == listed[0]
        info = json.loads(ada.post("/sdapi/v1/txt2img", json={"prompt": "x"}).json()["info"])
        assert info["sd_model_name"] == listed[0]
        ada.post("/api/picture?tab=a&id=b", json={"prompt": "x"}).raise_for_status()
        assert triton.asked_of == [listed[0]] * 3
        unknown = ada.post("/v1/images/generations", json={"prompt": "x", "model": "inc"})
        assert f"; there is {', '.join(names)}; " in unknown.json()["error"]["message"]


def test_openais_api_tells_nothing_of_a_model_that_a_key_does_not_allow(start, triton, tmp_path):
    triton.models = ["ink", "sd_ensemble"]
    keys = Keys(write(tmp_path / "keys.json", {"name": "ada", "models": ["ink"]}))
    url = start(keys=keys).url
    headers = {"Authorization": "Bearer ada's"}
    models = ("ink", "sd_ensemble", "inc")
    found = [httpx.get(f"{url}/v1/models/{one}", headers=headers).status_code for one in models]
    assert found == [200, 403, 404]


def test_an_unknown_checkpoint_is_refused_with_the_list(webui, triton):
    allowed = "got 'inc'; allowed: sd_ensemble, ink, oil"
    answer = webui.post("/options", json={"sd_model_checkpoint": "inc"})
    assert answer.json()["detail"] == f"'sd_model_checkpoint': {allowed}"
    asked = {"prompt": "x", "override_settings": {"sd_model_checkpoint": "inc"}}
    answer = webui.post("/txt2img", json=asked)
    assert answer.json()["detail"] == f"'override_settings.sd_model_checkpoint': {allowed}"
    assert triton.asked_of == []


def test_an_option_whose_model_has_been_unloaded(webui, triton):
    webui.post("/options", json={"sd_model_checkpoint": "ink"})
    triton.models.remove("ink")
    answer = webui.post("/txt2img", json={"prompt": "x"})
    assert (answer.status_code, triton.asked_of) == (400, [])
    assert answer.json()["detail"] == "'sd_model_checkpoint': got 'ink'; allowed: sd_ensemble, oil"


def test_without_sd_ensemble_the_first_model_is_meant(several, triton):
    triton.models = ["oil", "ink"]
    assert httpx.get(f"{several.url}/healthz").json() == {"status": "ok"}
    httpx.post(f"{several.url}/v1/images/generations", json={"prompt": "x"})
    assert triton.asked_of == ["ink"]
    triton.models, triton.ready = [], False
    health = httpx.get(f"{several.url}/healthz")
    assert (health.status_code, "has not loaded its model" in health.text) == (503, True)


def test_the_pages_api(several, triton):
    url = f"{several.url}/api"
    assert httpx.get(f"{url}/models").json()["models"] == ["sd_ensemble", "ink", "oil"]
    assert httpx.get(f"{url}/usual?model=ink").status_code == 200
    httpx.post(f"{url}/picture?tab=a&id=b", json={"prompt": "x", "model": "ink"})
    assert triton.asked_of == ["ink"]
    answer = httpx.post(f"{url}/picture?tab=a&id=c", json={"prompt": "x", "model": "inc"})
    allowed = "model: got 'inc'; allowed: sd_ensemble, ink, oil"
    assert answer.json() == {"message": allowed, "field": "model"}


ANSWERED = """
return performance.getEntriesByType("resource").some(({ name }) => name.endsWith(arguments[0]));
"""


@pytest.mark.skipif(chromium.missing() is not None, reason=str(chromium.missing()))
def test_the_page_lets_choose_and_remembers(several, triton, tmp_path):
    with chromium.Browser(tmp_path) as browser:
        browser.get(several.url)

        def models():
            return browser.find_element("id", "model")

        wait_for(lambda: len(Select(models()).options) == 3)
        assert models().is_displayed()
        Select(models()).select_by_visible_text("ink")
        browser.find_element("id", "prompt").send_keys("a red circle")
        browser.find_element("id", "draw").click()
        wait_for(lambda: triton.asked_of == ["ink"])
        wait_for(lambda: len(browser.find_elements("css selector", ".card:not(.coming)")) == 1)
        Select(models()).select_by_visible_text("oil")
        browser.get(several.url)
        for _ in range(2):
            wait_for(lambda: models().get_property("value") == "oil" and len(models().text) > 3)
            browser.refresh()
        wait_for(lambda: models().get_property("value") == "oil")
        sheet = browser.find_element("css selector", ".small [data-does=sheet]")
        browser.execute_script("arguments[0].click()", sheet)
        browser.find_element("css selector", "#sheet [data-does=same-seed]").click()
        assert models().get_property("value") == "ink"
        wait_for(lambda: browser.execute_script(ANSWERED, "api/loras?model=ink"))
        triton.models = ["sd_ensemble"]
        browser.get(several.url)
        wait_for(lambda: models().get_property("value") == "sd_ensemble")
        assert not models().is_displayed()
        assert browser.complaints() == []


def test_a_list_of_models_asks_the_server_once(several, monkeypatch):
    client = several.app.state.studio.client
    asked, models, loras = [], client.models, client.loras
    monkeypatch.setattr(client, "models", lambda: asked.append("models") or models())
    monkeypatch.setattr(client, "loras", lambda name: asked.append(name) or loras(name))
    found = httpx.get(f"{several.url}/v1/models").json()["data"]
    assert [one["id"] for one in found] == ["sd_ensemble", "ink", "oil"]
    assert sorted(asked) == ["ink", "models", "oil", "sd_ensemble"]
