"""Jobs: pictures in the background, by OpenAI's API."""

import base64
import threading

import httpx
import pytest

from tests.gateway.pictures import flat
from tests.gateway.running import wait_for
from tests.gateway.test_keys import write
from triptych.gateway import background
from triptych.gateway.keys import Keys
from triptych.picture.metadata import read_settings

PATH = "/v1/images/generations"
FOX = {"prompt": "a fox", "size": "64x64", "background": True}


class Jobs:
    """A caller of a gateway; `begin(**more)` gives a job's id."""

    def __init__(self, url, key="none"):
        headers = {"Authorization": f"Bearer {key}"}
        self.web = httpx.Client(base_url=url, headers=headers, timeout=30)

    def post(self, **more):
        return self.web.post(PATH, json={**FOX, **more})

    def begin(self, **more):
        answer = self.post(**more)
        assert answer.status_code == 202, answer.text
        assert answer.json()["object"] == "image.generation.job"
        return answer.json()["id"]

    def get(self, id):
        answer = self.web.get(f"{PATH}/{id}")
        return answer.json() if answer.status_code == 200 else answer.status_code

    def state(self, id):
        return self.get(id)["state"]

    def wait(self, id, state):
        wait_for(lambda: self.state(id) == state)
        return self.get(id)


@pytest.fixture
def jobs(start):
    return Jobs(start(max_pictures=4).url)  # two are for jobs


def test_a_job_goes_on_alone_and_has_the_answer_that_there_would_be(jobs, triton):
    triton.hold.clear()
    triton.held_from = 3
    asked = {"n": 2, "seed": 7, "model": "sd_ensemble"}
    id = jobs.begin(**asked)
    wait_for(lambda: jobs.get(id)["step"] == 4)
    now = jobs.get(id)
    assert (now["state"], now["total"], now.get("place")) == ("running", 8, None)
    assert "result" not in now and "error" not in now
    triton.hold.set()
    done = jobs.wait(id, "done")
    assert (done["step"], done["total"]) == (8, 8)
    plain = jobs.web.post(PATH, json={**FOX, **asked, "background": False}).json()
    result = done["result"]
    assert result.pop("created") <= plain.pop("created")
    assert result == plain
    seeds = [read_settings(base64.b64decode(one["b64_json"])).seed for one in result["data"]]
    assert seeds == [7, 8]


def test_jobs_wait_in_a_queue_while_there_is_no_room(jobs, triton):
    triton.hold.clear()
    first, second = jobs.begin(n=2), jobs.begin(prompt="second")
    third = jobs.begin(prompt="third", n=2)
    wait_for(lambda: len(triton.requests) == 2)
    assert [jobs.get(id).get("place") for id in (first, second, third)] == [1, 2, 3]
    triton.held_from = 2
    triton.hold.set()
    jobs.wait(first, "done")
    jobs.wait(third, "done")
    assert [one["prompt"] for one in triton.requests] == ["a fox"] * 2 + ["second"] + ["third"] * 2
    assert jobs.state(second) == "done"


def test_a_cancelled_job_ends_its_work_wherever_it_is(jobs, triton):
    triton.hold.clear()
    triton.held_from = 2
    drawn, waits = jobs.begin(n=2), jobs.begin()
    jobs.wait(drawn, "running")
    for id in (waits, drawn):
        assert jobs.web.delete(f"{PATH}/{id}").json()["state"] == "cancelled"
        assert jobs.state(id) == "cancelled"
    wait_for(lambda: triton.left == 2)
    triton.hold.set()
    after = jobs.begin(n=2)
    jobs.wait(after, "done")
    assert len(triton.requests) == 4
    assert jobs.web.delete(f"{PATH}/{after}").json()["state"] == "done"
    assert jobs.web.delete(f"{PATH}/none").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        ({"size": "60x64"}, 400, "size"),
        ({"n": 3}, 400, "n"),
        ({"model": "none"}, 404, "model"),
        ({"background": 1}, 400, "background"),
        ({"background": "transparent"}, 400, "background"),
    ],
)
def test_what_is_never_drawn_is_refused_at_once(jobs, asked, status, param):
    answer = jobs.post(**asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_what_fails_says_why_as_an_answer_would(jobs, triton):
    import grpc

    triton.abort = (grpc.StatusCode.INTERNAL, "unet: out of memory")
    failed = jobs.wait(jobs.begin(), "failed")
    assert failed["error"]["type"] == "server_error"
    assert "out of memory" in failed["error"]["message"]
    triton.abort = None
    jobs.wait(jobs.begin(), "done")


def test_jobs_leave_half_of_the_room_to_those_who_wait(jobs, triton):
    triton.hold.clear()
    first = jobs.begin(n=2)
    waits = jobs.begin()
    wait_for(lambda: len(triton.requests) == 2)
    answers = []

    def ask():
        answers.append(jobs.post(n=2, background=False, prompt="now"))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: len(triton.requests) == 4)
    assert jobs.post(background=False).status_code == 429
    assert [one["prompt"] for one in triton.requests] == ["a fox"] * 2 + ["now"] * 2
    assert jobs.state(waits) == "queued"
    triton.hold.set()
    asking.join()
    assert answers[0].status_code == 200
    jobs.wait(first, "done")
    jobs.wait(waits, "done")


def test_a_job_of_more_pictures_than_are_for_jobs_is_refused(jobs):
    error = jobs.post(n=3).json()["error"]
    told = "n: got 3; allowed: at most 2, in a job, half of the gateway's --max-pictures"
    assert (error["message"], error["param"]) == (told, "n")
    assert jobs.post(n=3, background=False).status_code == 200


def test_edits_and_variations_are_jobs_too(jobs, triton):
    file = flat((64, 72))
    for path, own in (("edits", {"prompt": "a fox"}), ("variations", {})):
        form = {"files": {"image": file}, "data": {**own, "seed": "7"}}
        plain = jobs.web.post(f"/v1/images/{path}", **form).json()
        form["data"]["background"] = "true"
        begun = jobs.web.post(f"/v1/images/{path}", **form)
        assert begun.status_code == 202, begun.text
        done = jobs.wait(begun.json()["id"], "done")
        assert done["result"]["data"] == plain["data"]
        assert triton.requests[-1] == triton.requests[-2] and triton.requests[-1]["image"]
        form["data"]["strength"] = "0.001"
        refused = jobs.web.post(f"/v1/images/{path}", **form)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "strength")
        form["data"].update(strength="0.5", background="transparent")
        assert jobs.web.post(f"/v1/images/{path}", **form).json()["error"]["param"] == "background"


def test_there_is_an_end_to_what_waiting_jobs_have_brought(jobs, triton, monkeypatch):
    file = flat((64, 72))
    monkeypatch.setattr(background, "MAX_BYTES", 2 * len(file))
    triton.hold.clear()
    form = {"files": {"image": file}, "data": {"background": "true"}}
    codes = [jobs.web.post("/v1/images/variations", **form).status_code for _ in range(3)]
    assert codes == [202, 202, 429]
    assert jobs.post().status_code == 202  # brings none
    triton.hold.set()


def test_a_full_server_is_asked_again(jobs, triton, monkeypatch):
    import grpc

    monkeypatch.setattr(background, "AGAIN", 0.05)
    triton.abort = (grpc.StatusCode.UNAVAILABLE, "the queue is full; try later")
    id = jobs.begin()
    wait_for(lambda: len(triton.requests) > 4)
    assert jobs.state(id) == "queued"
    triton.abort = None
    jobs.wait(id, "done")


def test_a_job_waits_for_a_full_server_also_where_it_is_checked(jobs, triton, monkeypatch):
    monkeypatch.setattr(background, "AGAIN", 0.05)
    triton.full = True
    assert jobs.post(background=False).status_code == 429
    refused = jobs.post(size="60x64")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "size")
    id, before = jobs.begin(), triton.knocks
    wait_for(lambda: triton.knocks > before + 4)
    assert jobs.state(id) == "queued"
    triton.full = False
    jobs.wait(id, "done")


def test_tries_to_begin_a_job_are_no_pictures_of_its_keys_minute(
    start, triton, tmp_path, monkeypatch
):
    monkeypatch.setattr(background, "AGAIN", 0.05)
    keys = Keys(write(tmp_path / "keys.json", {"name": "ada", "pictures_a_minute": 1}))
    jobs = Jobs(start(keys=keys).url, "ada's")
    triton.full = True
    id, before = jobs.begin(), triton.knocks
    wait_for(lambda: triton.knocks > before + 4)
    triton.full = False
    jobs.wait(id, "done")
    assert jobs.post(background=False).status_code == 429


def test_jobs_belong_to_their_key(start, triton, tmp_path):
    entries = {"name": "ada"}, {"name": "bob", "models": ["ink"]}
    url = start(keys=Keys(write(tmp_path / "keys.json", *entries))).url
    ada, bob = Jobs(url, "ada's"), Jobs(url, "bob's")
    id = ada.begin()
    ada.wait(id, "done")
    assert bob.get(id) == 404
    assert bob.web.delete(f"{PATH}/{id}").status_code == 404
    assert Jobs(url).get(id) == 401
    assert bob.post().status_code == 403


def test_there_is_an_end_to_jobs_and_to_results(jobs, triton, monkeypatch):
    monkeypatch.setattr(background, "MOST_OF_A_KEY", 2)
    triton.hold.clear()
    first, over = jobs.begin(), jobs.begin()
    full = jobs.post()
    assert (full.status_code, full.headers["retry-after"]) == (429, "2")
    jobs.web.delete(f"{PATH}/{over}")
    triton.hold.set()
    jobs.wait(first, "done")
    second = jobs.begin()  # ends after the first one
    jobs.wait(second, "done")
    size = len(base64.b64decode(jobs.get(second)["result"]["data"][0]["b64_json"]))
    monkeypatch.setattr(background, "MAX_BYTES", int(2.5 * size))
    third = jobs.begin()
    jobs.wait(third, "done")
    assert [jobs.get(first), jobs.state(second)] == [404, "done"]
    monkeypatch.setattr(background, "SECONDS", 0)
    assert [jobs.get(second), jobs.get(third)] == [404, 404]


def test_jobs_end_with_the_gateway(triton):
    from tests.gateway.running import Gateway

    triton.hold.clear()
    with Gateway(triton.url, max_pictures=1) as gateway:
        jobs = Jobs(gateway.url)
        jobs.begin()
        jobs.begin()
        wait_for(lambda: triton.requests)
    wait_for(lambda: triton.left == 1)
    assert len(triton.requests) == 1
