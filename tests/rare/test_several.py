"""Two servers behind one address: what is begun and lost with the one, the other draws."""

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.fleet.service import Service
from tests.gateway.running import Gateway, wait_for
from tests.server.calls import metrics, pixels
from tests.server.processes import Processes
from triptych.server.running import RunningServer

TOTAL = ("triptych_images_total", "unet_loop")
IN_FLIGHT = ("triptych_images_in_flight", "unet_loop")
ASKED = {"prompt": "a red circle", "seed": 7, "width": 128, "height": 128, "steps": 30}


def test_a_picture_that_is_lost_with_its_server_is_drawn_by_another(server, repository, tmp_path):
    """The gateway asks again by itself, and the seed makes the same picture."""

    def drawn():
        return metrics(server.metrics).get(TOTAL, 0)

    def draw(url):
        return httpx.post(f"{url}/sdapi/v1/txt2img", json=ASKED, timeout=100)

    before = drawn()
    lost = RunningServer(repository, tmp_path / "server.log")
    with lost, Service([lost.grpc]) as service, Gateway(service.address) as gateway:
        with ThreadPoolExecutor(1) as pool:
            drawing = pool.submit(draw, gateway.url)
            wait_for(lambda: metrics(lost.metrics).get(IN_FLIGHT))
            service.leave(lost.grpc), service.join(server.grpc)
            Processes(lost.process.pid).kill()
            answer = drawing.result()
        assert answer.status_code == 200, answer.text
        again = draw(gateway.url)
    first, second = (pixels(b64decode(one.json()["images"][0])) for one in (answer, again))
    assert (first == second).all()
    wait_for(lambda: drawn() == before + 2)  # the lost one too
