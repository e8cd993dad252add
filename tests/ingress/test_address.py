"""Where a request comes from (CONTRACT §1.9)."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.ingress.address import UNKNOWN, client_address

KEY = "our proxy's secret"
TRUSTED = [ipaddress.ip_network(cidr) for cidr in ("10.0.0.0/8", "fd00::/8")]
STRANGER, REWRITTEN, PROXY = ("203.0.113.9", 4711), ("6.6.6.6", 0), ("127.0.0.1", 4711)
RUBBISH = st.text(max_size=20) | st.sampled_from(["6.6.6.6", "10.0.0.1", "::1", "", ",", "a:b"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        pytest.param(STRANGER, [], "203.0.113.9", id="direct"),
        pytest.param(STRANGER, ["6.6.6.6"], "203.0.113.9", id="direct, with a forged hop"),
        pytest.param(("2001:db8::9", 4711), [], "2001:db8::9", id="direct, IPv6"),
        pytest.param(("10.1.2.3", 4711), ["6.6.6.6"], "6.6.6.6", id="from a trusted proxy"),
        pytest.param(("10.1.2.3", 4711), ["1.1.1.1, 6.6.6.6"], "6.6.6.6", id="last hop counts"),
        pytest.param(("10.1.2.3", 4711), [], "10.1.2.3", id="the trusted proxy itself"),
        pytest.param(("fd00::1", 4711), ["2001:db8::9"], "2001:db8::9", id="trusted, IPv6"),
        pytest.param(PROXY, [], "127.0.0.1", id="on this machine"),
        pytest.param(REWRITTEN, ["6.6.6.6"], UNKNOWN, id="forged on loopback: the port is 0"),
        pytest.param(REWRITTEN, ["", ""], UNKNOWN, id="forged with empty lines"),
        pytest.param(
            ("6.6.6.6", 1234), ["6.6.6.6:1234"], UNKNOWN, id="forged on loopback, with a port"
        ),
        pytest.param(None, [], UNKNOWN, id="no peer"),
        pytest.param(None, ["6.6.6.6"], UNKNOWN, id="no peer, forged"),
        pytest.param(("testclient", 50_000), [], UNKNOWN, id="a peer that is no address"),
    ],
)
@pytest.mark.parametrize(
    ("shown", "proxy_key"),
    [
        pytest.param(None, KEY, id="no secret shown"),
        pytest.param("guessed", KEY, id="a wrong secret"),
        pytest.param("", KEY, id="an empty secret"),
        pytest.param(KEY[:-1], KEY, id="half a secret"),
        pytest.param("ключ\ud800", KEY, id="not ASCII"),
        pytest.param(None, None, id="no proxy of ours"),
        pytest.param("", "", id="two empty secrets are none"),
        pytest.param(KEY, None, id="a secret nobody asked for"),
    ],
)
def test_past_our_proxy(peer, forwarded, address, shown, proxy_key) -> None:
    """Without the secret only the TCP peer counts, and what trusted proxies say of theirs."""
    told = client_address(peer, forwarded, shown_key=shown, proxy_key=proxy_key, trusted=TRUSTED)
    assert told == address


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        pytest.param(["203.0.113.9"], "203.0.113.9", id="one hop"),
        pytest.param(["6.6.6.6", "203.0.113.9"], "203.0.113.9", id="forged line above"),
        pytest.param(["6.6.6.6, 203.0.113.9"], "203.0.113.9", id="forged hop before"),
        pytest.param(["rubbish", "203.0.113.9"], "203.0.113.9", id="rubbish above"),
        pytest.param(["203.0.113.9, 10.0.0.1", "10.0.0.2"], "203.0.113.9", id="trusted skipped"),
        pytest.param(["6.6.6.6, 203.0.113.9 ,10.0.0.1"], "203.0.113.9", id="and no further"),
        pytest.param(["10.0.0.1", "10.0.0.2"], "10.0.0.1", id="all trusted: the first"),
        pytest.param(["2001:db8::9", "fd00::1"], "2001:db8::9", id="IPv6"),
        pytest.param(["203.0.113.9", "rubbish"], UNKNOWN, id="rubbish last"),
        pytest.param(["rubbish", "10.0.0.1"], UNKNOWN, id="rubbish before a trusted proxy"),
        pytest.param(["203.0.113.9:80"], "203.0.113.9", id="with a port"),
        pytest.param(["[2001:db8::9]:80"], "2001:db8::9", id="IPv6 with a port"),
        pytest.param(["203.0.113.9:port"], UNKNOWN, id="with a word for a port"),
        pytest.param([""], UNKNOWN, id="an empty line"),
        pytest.param([], UNKNOWN, id="no line"),
    ],
)
@pytest.mark.parametrize("peer", [PROXY, REWRITTEN, None], ids=["peer", "rewritten", "no peer"])
def test_through_our_proxy(peer, forwarded, address) -> None:
    """With the secret the last hop is true; trusted proxies are skipped from the right."""
    told = client_address(peer, forwarded, shown_key=KEY, proxy_key=KEY, trusted=TRUSTED)
    assert told == address


@given(written=st.lists(RUBBISH, max_size=4))
def test_a_client_cannot_choose_its_address(written: list[str]) -> None:
    """Whatever a client writes, its own address is told; past our proxy perhaps none."""
    through = client_address(
        PROXY, [*written, "203.0.113.9"], shown_key=KEY, proxy_key=KEY, trusted=TRUSTED
    )
    past = client_address(STRANGER, written, shown_key="", proxy_key=KEY, trusted=TRUSTED)
    behind = client_address(
        ("10.0.0.1", 4711), [*written, "203.0.113.9"], shown_key=None, proxy_key=KEY,
        trusted=TRUSTED,
    )  # fmt: skip
    assert through == "203.0.113.9"
    assert {past, behind} <= {"203.0.113.9", UNKNOWN}
