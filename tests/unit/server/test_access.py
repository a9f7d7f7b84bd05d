"""Tokens that are guessed, and who a client behind a proxy is."""

import time
from pathlib import Path

import httpx
import pytest

from freemvmt.errors import UserError
from freemvmt.server.http.auth import WrongTokens
from freemvmt.server.settings import SHORTEST_TOKEN, TOKEN_VARIABLE, ServeSettings

from live_server import running

RIGHT = {"Authorization": "Bearer secret"}
WRONG = {"Authorization": "Bearer guess"}


def test_wrong_tokens_are_refused_after_ten_and_never_in_the_log(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(bundle, token="secret", protect_reads=True) as address, httpx.Client(base_url=address) as client:
        monkeypatch.setattr(WrongTokens, "SECONDS", 1.0)
        caplog.set_level("INFO")
        for number in range(WrongTokens.MOST):
            assert client.get("/info").status_code == 401  # no token is no guess
            assert client.get("/info", headers={"Authorization": f"Bearer guess{number}"}).status_code == 401
        refused = client.get("/info", headers=WRONG)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 2
        assert client.get("/info").status_code == 401
        assert client.get("/info", headers=RIGHT).is_success  # whatever others at this address have tried
        time.sleep(1.1)
        assert client.get("/info", headers=WRONG).status_code == 401
        said = caplog.text
        assert "10 wrong tokens from 127.0.0.1" in said
        assert "guess" not in said
        assert "secret" not in said


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WrongTokens, "ADDRESSES", 5)
    wrong = WrongTokens()
    for number in range(50):
        wrong.count(f"10.0.0.{number}")
    assert len(wrong._seen) == 5


def guess(client: httpx.Client, *forwarded: str) -> int:
    """The status of a wrong token that came with these lines of X-Forwarded-For."""
    return client.get("/info", headers=[*WRONG.items(), *(("X-Forwarded-For", line) for line in forwarded)]).status_code


def test_a_proxy_that_is_trusted_says_who_the_client_is(bundle: Path) -> None:
    options = {"token": "secret", "protect_reads": True, "trusted_proxies": ("127.0.0.0/8", "10.1.0.1")}
    with running(bundle, **options) as address, httpx.Client(base_url=address) as client:
        assert [guess(client, "203.0.113.7") for _ in range(WrongTokens.MOST)] == [401] * WrongTokens.MOST
        assert guess(client, "203.0.113.7") == 429
        assert guess(client, "198.51.100.9") == 401
        # What a client writes itself stands further to the left than what the proxies add.
        assert guess(client, "198.51.100.10, 203.0.113.7") == 429
        assert guess(client, "198.51.100.10", "203.0.113.7:4711, 10.1.0.1") == 429
        assert guess(client, "203.0.113.7, 198.51.100.11") == 401
        assert guess(client) == 401  # the proxy itself


def test_of_others_the_header_is_not_believed(bundle: Path) -> None:
    for trusted in ((), ("10.0.0.1",)):
        options = {"token": "secret", "protect_reads": True, "trusted_proxies": trusted}
        with running(bundle, **options) as address, httpx.Client(base_url=address) as client:
            statuses = [guess(client, f"203.0.113.{number}") for number in range(WrongTokens.MOST + 1)]
            assert statuses == [401] * WrongTokens.MOST + [429]
            assert client.get("/info", headers=RIGHT | {"X-Forwarded-For": "203.0.113.1"}).is_success


def test_the_log_names_the_client_behind_a_trusted_proxy(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "freemvmt.access")
    with running(bundle, trusted_proxies=("127.0.0.1",), access_log=True) as address:
        assert httpx.get(f"{address}/health", headers={"X-Forwarded-For": "203.0.113.7"}).is_success
    (record,) = [record for record in caplog.records if record.name == "freemvmt.access"]
    assert '"client": "203.0.113.7"' in record.getMessage()


def test_proxies_are_addresses_or_networks() -> None:
    found = ServeSettings(trusted_proxies=("10.0.0.2", "192.168.0.0/16", "2001:db8::/32"), token=None).proxies
    # On a socket for both, the system writes IPv4 addresses within IPv6.
    assert found == [
        "10.0.0.2/32",
        "::ffff:10.0.0.2/128",
        "192.168.0.0/16",
        "::ffff:192.168.0.0/112",
        "2001:db8::/32",
    ]
    for wrong in ("*", "", "proxy.example", "10.0.0.300", "10.0.0.2/8", "10.0.0.2,10.0.0.3"):
        with pytest.raises(UserError, match=r"--trusted-proxies .* is no address and no network"):
            ServeSettings(trusted_proxies=(wrong,), token=None)


def test_a_token_that_can_be_guessed_is_for_this_machine_alone() -> None:
    short, long = "x" * (SHORTEST_TOKEN - 1), "x" * SHORTEST_TOKEN
    for options in ({}, {"read_only": True, "protect_reads": True}):
        with pytest.raises(UserError, match=f"{TOKEN_VARIABLE} has fewer than 16 characters"):
            ServeSettings(host="0.0.0.0", token=short, **options).check_exposure()
        ServeSettings(host="0.0.0.0", token=long, **options).check_exposure()
        ServeSettings(host="127.0.0.1", token=short, **options).check_exposure()
    ServeSettings(host="0.0.0.0", token=short, read_only=True).check_exposure()  # it is never asked for
