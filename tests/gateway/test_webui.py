"""The API of the Stable Diffusion WebUI, as its clients use it."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
import webuiapi
from PIL import Image

from tests.gateway.fake_triton import PREVIEW
from tests.gateway.running import started, wait_for
from triptych.schedulers import NAMES, TABLE


def test_a_prompt_becomes_pictures(webui, triton):
    asked = {
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "steps": 3,
        "cfg_scale": 6.5,
        "width": 128,
        "height": 64,
        "sampler_name": "Euler a",
        "seed": 5,
        "batch_size": 2,
        "n_iter": 2,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "eta": None,
    }
    answer = webui.post("/txt2img", json=asked)
    assert answer.status_code == 200
    drawn = answer.json()
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in drawn["images"]]
    assert [image.size for image in images] == [(128, 64)] * 4
    info = json.loads(drawn["info"])
    assert info["all_seeds"] == [5, 6, 7, 8]
    assert (info["sampler_name"], info["steps"], info["cfg_scale"]) == ("Euler a", 3, 6.5)
    assert drawn["parameters"]["cfg_scale"] == 6.5
    sent = {**triton.requests[0], "seed": None}
    assert sent == {
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "num_inference_steps": 3,
        "guidance_scale": 6.5,
        "width": 128,
        "height": 64,
        "scheduler": "euler_ancestral",
        "prompt_syntax": "webui",
        "seed": None,
        "timeout": 300,
    }


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, None),
        ({"clip_skip": 1}, None),
        ({"clip_skip": 2}, 1),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, 1),
        ({"clip_skip": 3, "override_settings": {"CLIP_stop_at_last_layers": 2}}, 1),
        ({"clip_skip": 3, "override_settings": {"CLIP_stop_at_last_layers": None}}, 2),
    ],
)
def test_clip_skip_is_counted_from_one_there(webui, triton, asked, sent):
    assert webui.post("/txt2img", json={"prompt": "x", **asked}).status_code == 200
    assert triton.requests[0].get("clip_skip") == sent
    assert triton.requests[0]["prompt_syntax"] == "webui"


def test_the_part_of_the_steps_that_has_guidance_goes_by_our_names(webui, triton):
    asked = {"prompt": "x", "guidance_start": 0, "guidance_stop": 0.5}
    assert webui.post("/txt2img", json=asked).status_code == 200
    assert {name: triton.requests[0].get(name) for name in asked} == asked
    assert webui.post("/txt2img", json={"prompt": "x", "cache_interval": 3}).status_code == 200
    assert triton.requests[1]["cache_interval"] == 3
    refused = webui.post("/txt2img", json={"prompt": "x", "guidance_stop": 1.5})
    assert refused.status_code == 422 and "guidance_stop" in refused.text


def test_sdxls_settings_go_by_our_names(webui, triton):
    own = {"prompt_2": "1", "negative_prompt_2": "2", "original_size": [256, 512]}
    asked = {"prompt": "x", **own, "crops_coords_top_left": [8, 0], "target_size": [64, 64]}
    refused = webui.post("/txt2img", json=asked)
    assert refused.status_code == 400 and "prompt_2: got '1'" in refused.json()["detail"]
    triton.is_sdxl = True
    assert webui.post("/txt2img", json=asked).status_code == 200
    assert {name: triton.requests[0].get(name) for name in asked} == asked


def test_a_client_of_the_webui_draws(gateway, triton):
    address = httpx.URL(gateway.url)
    client = webuiapi.WebUIApi(host=address.host, port=address.port, sampler="Euler a", steps=3)
    drawn = client.txt2img(prompt="a red circle", negative_prompt="blue", seed=5, batch_size=2)
    assert [image.size for image in drawn.images] == [(512, 512)] * 2
    assert drawn.info["all_seeds"] == [5, 6]
    assert triton.requests[0]["scheduler"] == "euler_ancestral"
    client.txt2img(prompt="x", sampler_name="DDIM")
    assert triton.requests[-1]["eta"] == 1  # webuiapi always sends it, and the WebUI draws so
    assert "Euler a" in [sampler["name"] for sampler in client.get_samplers()]
    assert client.get_progress()["progress"] == 0
    assert client.util_get_current_model() == "sd_ensemble"
    client.util_set_model("SD_Ensemble")
    assert client.png_info(drawn.images[1]).parameters["seed"] == 6
    assert client.get_loras() == client.get_sd_vae() == []
    assert [one["name"] for one in client.get_upscalers()] == ["Lanczos", "Nearest"]
    assert client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.get_scripts() == {"txt2img": [], "img2img": []}
    with pytest.raises(RuntimeError, match="Restart"):
        client.txt2img(prompt="x", sampler_name="Restart")
    assert client.refresh_checkpoints() is None
    triton.loras = ["ink", "Pastell Töne"]
    assert [one["name"] for one in client.get_loras()] == triton.loras
    assert client.get_realesrgan_models() == []


def test_zero_is_the_seed_after_the_highest(webui):
    answer = webui.post("/txt2img", json={"prompt": "x", "seed": 2**64 - 1, "n_iter": 2})
    assert json.loads(answer.json()["info"])["all_seeds"] == [2**64 - 1, 0]


def test_what_is_left_out_is_the_models_own_and_the_seed_is_told(webui):
    info = json.loads(webui.post("/txt2img", json={"prompt": "x", "seed": -1}).json()["info"])
    assert (info["width"], info["steps"], info["sampler_name"]) == (64, 20, "PLMS")
    assert 0 <= info["seed"] < 2**32


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, "dpmpp_2m_karras"),
        ({"sampler_name": "dpm++ 2m karras", "scheduler": "Automatic"}, "dpmpp_2m_karras"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Automatic"}, "dpmpp_2m_karras"),
        ({"sampler_name": "DPM++ 2M"}, "dpmpp_2m_karras"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "normal"}, "dpmpp_2m"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "Uniform"}, "dpmpp_2m"),
        ({"sampler_name": "dpmpp_2m"}, "dpmpp_2m"),
        ({"sampler_name": "dpmpp_2m", "scheduler": "karras"}, "dpmpp_2m_karras"),
        ({"sampler_name": "DPMSolverMultistepScheduler"}, "DPMSolverMultistepScheduler"),
        ({"sampler_name": "EulerDiscreteScheduler", "scheduler": "Uniform"}, "euler"),
        ({"sampler_name": "Euler a", "scheduler": "NORMAL"}, "euler_ancestral"),
        ({"sampler_name": "DPM++ 2M SDE"}, "dpmpp_2m_sde_exponential"),
        ({"sampler_name": "DPM++ 2M SDE", "scheduler": "Karras"}, "dpmpp_2m_sde_karras"),
        ({"sampler_name": "DPM2 a"}, "dpm2_ancestral_karras"),
        ({"sampler_name": "Heun", "scheduler": "Beta"}, "heun_beta"),
        ({"sampler_name": "euler exponential"}, "euler_exponential"),
        ({"sampler_index": "LMS"}, "lms"),
        ({"sampler_name": "lcm"}, "lcm"),
    ],
)
def test_samplers_by_their_names_there(webui, triton, asked, sent):
    assert webui.post("/txt2img", json={"prompt": "x", **asked}).status_code == 200
    assert triton.requests[0]["scheduler"] == sent


@pytest.mark.parametrize("schedule", ["DDIM", "SGM Uniform", "sgm_uniform", "Simple", "?"])
def test_a_schedule_that_is_not_there_is_said(webui, triton, schedule):
    asked = {"prompt": "x", "sampler_name": "Euler", "scheduler": schedule}
    drawn = webui.post("/txt2img", json=asked).json()
    assert triton.requests[0]["scheduler"] == "euler"
    assert json.loads(drawn["info"])["warnings"] == [
        f"scheduler: {schedule!r} is not known here; the sampler's own is used"
    ]


def test_every_sampler_that_is_listed_draws(webui, triton):
    for sampler in webui.get("/samplers").json():
        asked = {"prompt": "x", "sampler_name": sampler["name"]}
        drawn = webui.post("/txt2img", json=asked).json()
        named = json.loads(drawn["info"])["sampler_name"]
        automatic = {
            "DPM++ 2M": "DPM++ 2M Karras",
            "DPM++ 2M SDE": "DPM++ 2M SDE Exponential",
            "DPM2": "DPM2 Karras",
            "DPM2 a": "DPM2 a Karras",
        }
        assert named == automatic.get(sampler["name"], sampler["name"])


@pytest.mark.parametrize("entry", TABLE, ids=NAMES)
def test_every_scheduler_may_be_the_models_own(webui, triton, entry):
    triton.scheduler = entry.name
    drawn = webui.post("/txt2img", json={"prompt": "x"}).json()
    assert json.loads(drawn["info"])["sampler_name"] == entry.label


@pytest.mark.parametrize(
    "asked",
    [
        {"restore_faces": True},
        {"tiling": True},
        {"styles": ["noir"]},
        {"script_name": "x/y/z plot"},
        {"alwayson_scripts": {"controlnet": {}}},
        {"subseed_strength": 0.5},
        {"clip_skip": 40},
        {"seed_resize_from_h": 256},
        {"s_churn": 0.5},
        {"s_noise": 1.01},
        {"refiner_checkpoint": "refiner"},
        {"infotext": "x\nSteps: 3"},
        {"steps": "many"},
        {"steps": True},
    ],
)
def test_what_would_change_the_picture_and_cannot_be_is_refused_as_there(webui, asked):
    answer = webui.post("/txt2img", json={"prompt": "x", **asked})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"].startswith("got ")
    assert answer.json()["detail"][0]["loc"][:2] == ["body", *asked]


def test_what_means_nothing_may_be_said(webui):
    asked = {"enable_hr": False, "styles": [], "script_name": "", "alwayson_scripts": {}}
    more = {"subseed_strength": 0, "tiling": None, "steps": 3.0, "sampler_name": None}
    nulls = dict.fromkeys(["negative_prompt", "batch_size", "n_iter", "override_settings", "eta"])
    neutral = {"seed_resize_from_w": -1, "s_churn": 0, "s_noise": 1.0, "refiner_switch_at": 0.8}
    overrides = {"CLIP_stop_at_last_layers": 1, "sd_model_checkpoint": "sd_ensemble", "sd_vae": ""}
    overrides.update({"save_images_add_number": True, "forge_additional_modules": []})
    everything = {**asked, **more, **nulls, **neutral, "override_settings": overrides}
    assert webui.post("/txt2img", json={"prompt": "x", **everything}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLIP_stop_at_last_layers", 40),
        ("CLIP_stop_at_last_layers", "2"),
        ("sd_model_checkpoint", "dreamshaper_8"),
        ("sd_vae", "vae-ft-mse-840000"),
        ("eta_noise_seed_delta", 31337),
        ("a_new_option", "x"),
        ("samples_format", "avif"),
        ("samples_format", ["png"]),
    ],
)
def test_an_override_that_would_change_the_picture_is_refused_by_name(webui, triton, name, value):
    answer = webui.post("/txt2img", json={"prompt": "x", "override_settings": {name: value}})
    assert answer.status_code == 400
    assert f"override_settings.{name}" in answer.json()["detail"]
    assert triton.requests == []


def test_the_files_format_may_be_overridden(webui):
    overrides = {"override_settings": {"samples_format": "jpg"}}
    (image,) = webui.post("/txt2img", json={"prompt": "x", **overrides}).json()["images"]
    assert base64.b64decode(image).startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("sampler", "eta", "status"),
    [
        ("Euler a", 1, 200),
        ("Euler a", 0.5, 400),
        ("DDIM", 0, 200),
        ("DDIM", 1, 200),
        ("DDIM", 2, 400),
        ("TCD", 0.5, 200),
        ("LMS", 1, 200),
        (None, 1, 200),
    ],
)
def test_eta_where_it_is_read(webui, triton, sampler, eta, status):
    answer = webui.post("/txt2img", json={"prompt": "x", "sampler_name": sampler, "eta": eta})
    assert answer.status_code == status
    if status == 200:
        assert triton.requests[0].get("eta") == (eta if sampler in ("DDIM", "TCD") else None)
        said = "eta: not used" in answer.json()["info"]
        assert said == (sampler is None)
    assert status == 200 or answer.json()["detail"].startswith("eta: got ")


def test_an_empty_prompt_is_drawn(webui, triton):
    assert webui.post("/txt2img", json={"prompt": ""}).status_code == 200
    assert webui.post("/txt2img", json={"negative_prompt": "x"}).status_code == 200
    assert [one["prompt"] for one in triton.requests] == ["", ""]


def test_infotexts_and_png_info_keep_the_settings(webui):
    asked = {
        "prompt": "a ☀, (x)",
        "negative_prompt": "b\nc",
        "steps": 3,
        "cfg_scale": 6.5,
        "seed": 5,
    }
    asked["sampler_name"] = "DPM++ 2M"
    drawn = webui.post("/txt2img", json=asked).json()
    (text,) = json.loads(drawn["info"])["infotexts"]
    assert text == (
        "a ☀, (x)\nNegative prompt: b\nc\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras,"
        " CFG scale: 6.5, Seed: 5, Size: 64x64"
    )
    (image,) = drawn["images"]
    assert Image.open(io.BytesIO(base64.b64decode(image))).text["parameters"] == text
    for given in (image, f"data:image/png;base64,{image}"):
        told = webui.post("/png-info", json={"image": given}).json()
        assert told["info"] == text
        assert told["parameters"]["scheduler"] == "dpmpp_2m_karras"
    for nothing in ("", "x", base64.b64encode(PREVIEW).decode()):
        assert webui.post("/png-info", json={"image": nothing}).json()["info"] == ""


@pytest.mark.parametrize(
    "asked",
    [
        {"sampler_name": "Restart"},
        {"sampler_name": "Euler a", "scheduler": "Karras"},
        {"sampler_name": "DDIM", "scheduler": "Beta"},
        {"scheduler": "Karras"},
        {"scheduler": "exponential"},
        {"width": 100},
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(webui, asked):
    answer = webui.post("/txt2img", json={"prompt": "x", **asked})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "detail", "body", "errors"}
    assert any(answer.json()["detail"].startswith(f"{field}: got ") for field in asked)


def test_progress_of_what_is_drawn(webui, triton):
    idle = webui.get("/progress").json()
    assert (idle["progress"], idle["current_image"]) == (0, None)
    assert idle["state"]["job_count"] == 0
    triton.held_from = 4
    triton.hold.clear()
    drawing = threading.Thread(
        target=webui.post, args=("/txt2img",), kwargs={"json": {"prompt": "x", "batch_size": 2}}
    )
    drawing.start()
    wait_for(lambda: webui.get("/progress").json()["state"]["sampling_step"] == 6)
    now = webui.get("/progress").json()
    assert now["progress"] == 0.75
    assert now["eta_relative"] > 0
    assert now["state"]["job_count"] == 2
    assert now["state"]["sampling_steps"] == 8
    assert base64.b64decode(now["current_image"]) == PREVIEW
    unseen = webui.get("/progress", params={"skip_current_image": True}).json()
    assert unseen["current_image"] is None
    triton.hold.set()
    drawing.join()
    assert webui.get("/progress").json()["state"]["job_count"] == 0


def test_interrupt_gives_everything_up(webui, triton):
    triton.hold.clear()
    answers = []
    drawing = threading.Thread(
        target=lambda: answers.append(webui.post("/txt2img", json={"prompt": "x", "n_iter": 3}))
    )
    drawing.start()
    wait_for(lambda: len(triton.requests) == 3)
    assert webui.post("/interrupt").status_code == 200
    drawing.join(10)
    assert answers[0].status_code == 200
    assert answers[0].json()["images"] == []
    wait_for(lambda: triton.left == 3)


def as_client(address):
    """Headers by which a proxy on this machine says whose request it hands on."""
    return {"X-Forwarded-For": address}


def test_progress_and_interrupt_are_about_the_pictures_of_the_same_address(webui, triton):
    triton.held_from = 4
    triton.hold.clear()
    answers = {}

    def draw(address):
        asked = {"prompt": "x", "steps": 8}
        answers[address] = webui.post("/txt2img", json=asked, headers=as_client(address))

    def state(address):
        return webui.get("/progress", headers=as_client(address)).json()["state"]

    clients = "192.0.2.1", "192.0.2.2"
    drawing = [threading.Thread(target=draw, args=(address,)) for address in clients]
    for thread in drawing:
        thread.start()
    wait_for(lambda: [state(address)["job_count"] for address in clients] == [1, 1])
    assert state("192.0.2.3")["job_count"] == 0
    webui.post("/interrupt", headers=as_client("192.0.2.3"))
    assert not any(state(address)["interrupted"] for address in clients)
    webui.post("/interrupt", headers=as_client(clients[0]))
    drawing[0].join(10)
    triton.hold.set()
    drawing[1].join(10)
    assert [len(answers[address].json()["images"]) for address in clients] == [0, 1]


def test_who_writes_another_address_without_being_a_trusted_proxy_is_not_believed(triton, lines):
    command = [sys.executable, "-m", "triptych.cli", "gateway", "--port", "0", "--url", triton.url]
    env = {**os.environ, "FORWARDED_ALLOW_IPS": "10.0.0.1"}
    with started(command, env=env, stderr=subprocess.PIPE) as process:
        url = process.stdout.readline().split()[-1]
        httpx.get(f"{url}api/models", headers=as_client("192.0.2.1"))
        assert json.loads(process.stderr.readline())["client"] == "127.0.0.1"


def test_the_progress_of_one_request_by_the_name_that_it_has(webui, gateway, triton):
    """As the WebUI's own page asks, and clients that stand behind one address."""

    def ask(task, **more):
        asked = {"id_task": task, **more}
        return httpx.post(f"{gateway.url}/internal/progress", json=asked).json()

    assert ask("task(a)") == {
        "active": False,
        "queued": False,
        "completed": False,
        **dict.fromkeys(("progress", "eta", "live_preview", "textinfo"), None),
        "id_live_preview": -1,
    }
    triton.held_from = 4
    triton.hold.clear()
    asked = {"prompt": "x", "force_task_id": "task(a)"}
    with ThreadPoolExecutor(2) as pool:
        drawing = pool.submit(webui.post, "/txt2img", json=asked)
        other = pool.submit(webui.post, "/txt2img", json={"prompt": "x", "force_task_id": "b"})
        wait_for(lambda: (ask("task(a)")["progress"] or 0) >= 0.75)
        now = ask("task(a)")
        assert (now["active"], now["queued"], now["progress"]) == (True, False, 0.75)
        assert base64.b64decode(now["live_preview"].partition("base64,")[2]) == PREVIEW
        again = ask("task(a)", id_live_preview=now["id_live_preview"])
        assert again["live_preview"] is None and again["id_live_preview"] == now["id_live_preview"]
        triton.hold.set()
        assert drawing.result().status_code == other.result().status_code == 200
    assert ask("task(a)")["completed"]
    answer = httpx.post(f"{gateway.url}/internal/progress", json={})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "id_task"]


def test_what_clients_ask_before_they_draw(webui):
    assert webui.get("/options").json()["sd_model_checkpoint"] == "sd_ensemble"
    same = {"sd_model_checkpoint": "sd_ensemble", "CLIP_stop_at_last_layers": 1}
    assert webui.post("/options", json=same).status_code == 200
    for other in ({"sd_model_checkpoint": "sdxl"}, {"CLIP_stop_at_last_layers": 2}, {"x": [1]}):
        answer = webui.post("/options", json=other)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(repr(next(iter(other))))
    for path in ("sd-vae", "hypernetworks"):
        assert webui.get(f"/{path}").json() == []
    assert webui.get("/embeddings").json() == {"loaded": {}, "skipped": {}}
    assert webui.get("/scripts").json() == {"txt2img": [], "img2img": []}
    assert webui.get("/sd-models").json()[0]["title"] == "sd_ensemble"
    schedules = [one["label"] for one in webui.get("/schedulers").json()]
    assert schedules == ["Automatic", "Uniform", "Karras", "Exponential", "Beta"]


def test_more_pictures_than_are_ever_drawn_are_not_too_many_now(webui, triton):
    answer = webui.post("/txt2img", json={"prompt": "x", "batch_size": 8, "n_iter": 8})
    assert answer.status_code == 400
    told = "batch_size: got 8, times n_iter 8; allowed: at most 31, the gateway's --max-pictures"
    assert answer.json()["detail"] == told
    assert triton.requests == []


def test_overload_says_when_to_come_back(webui, triton):
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    answer = webui.post("/txt2img", json={"prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert "Exceeds maximum queue size" in answer.json()["detail"]


def test_the_key_may_be_basics_password(start):
    gateway = start(api_key="sesame")
    url = f"{gateway.url}/sdapi/v1/samplers"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=("anybody", "wrong")).status_code == 401
    for bad in (b"Basic %%%", "Basic \xe9".encode("latin-1")):
        assert httpx.get(url, headers={"Authorization": bad}).status_code == 401
    assert httpx.get(url, auth=("anybody", "sesame")).status_code == 200
