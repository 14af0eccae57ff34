"""Which hosts a webhook may go to, and what signs it, without a gateway."""

import pytest

from tests.gateway.test_webhooks import KEY, SECRET
from triptych.gateway.webhooks import Webhooks, signed


def test_ports_and_ipv6_are_part_of_a_host():
    allowed = Webhooks(["Hooks.example", "plain:80", "tls:443", "[::1]:8080", "[::2]"], SECRET)

    def takes(text):
        try:
            return bool(allowed.url(text))
        except ValueError:
            return False

    for text in (
        *("http://hooks.example/x", "HTTPS://HOOKS.example:443", "http://plain", "http://plain:80"),
        *("https://tls/", "http://[::1]:8080/", "https://[::2]/", "http://[::2]:80/"),
    ):
        assert takes(text), text
    for text in (
        *("https://hooks.example:80", "http://hooks.example:8080", "https://plain", "http://tls"),
        *("http://[::1]/", "http://::1:8080/", "http://[::2]:443/", "http://x.hooks.example/"),
        *("http://hooks.example.evil/", "http://[::2%25lo]/"),
    ):
        assert not takes(text), text


@pytest.mark.parametrize(
    "secret", ["", KEY.hex(), SECRET[:-1], SECRET[6:], f"{SECRET}?", "whsec_", "whsec_" + "A" * 88]
)
def test_secrets_that_are_none_are_refused(secret):
    with pytest.raises(ValueError, match="secret must be whsec_"):
        Webhooks(["hooks.example"], secret)


@pytest.mark.parametrize(
    "host", ["", "http://x", "x/y", "ada@x", "*", "*.x", "x:y", "a b", "[::1", "x?y", "x#y"]
)
def test_hosts_that_are_none_are_refused(host):
    with pytest.raises(ValueError, match="--webhook-host"):
        Webhooks([host], SECRET)


def test_a_signature_is_the_one_that_other_makers_of_it_give():
    # By the package standardwebhooks 1.1.0.
    assert signed(KEY, "job-1", 1764236400, '{"prompt": "ein Füchslein"}') == {
        "webhook-id": "job-1",
        "webhook-timestamp": "1764236400",
        "webhook-signature": "v1,JZRq15mtZB+hBqZmJRArE6hlyq6cfWR5++zLUQBKR3Q=",
    }
