"""What the URL of a store says."""

import pytest

from serve_app.store_place import Place, place_of


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://host", Place("server", "redis://host")),
        ("rediss://u:p@host:1/2", Place("server", "rediss://u:p@host:1/2")),
        ("unix:///run/r.sock", Place("server", "unix:///run/r.sock")),
        ("redis+cluster://a", Place("cluster", "redis://a:6379/", (("a", 6379),))),
        (
            "redis+cluster://u:p%40@a:1,b,[::1]:3/0",
            Place("cluster", "redis://u:p%40@a:1/", (("a", 1), ("b", 6379), ("::1", 3))),
        ),
        (
            "rediss+cluster://[::1]/?ssl_ca_certs=/ca.pem",
            Place("cluster", "rediss://[::1]:6379/?ssl_ca_certs=%2Fca.pem", (("::1", 6379),)),
        ),
        (
            "redis+sentinel://a,b:2/main",
            Place("sentinel", "redis://a:26379/0", (("a", 26379), ("b", 2)), "main"),
        ),
        (
            "rediss+sentinel://:p@a/my%20store/3?sentinel_password=q&sentinel_username=s",
            Place(
                "sentinel",
                "rediss://:p@a:26379/3",
                (("a", 26379),),
                "my store",
                {"username": "s", "password": "q"},
            ),
        ),
    ],
)
def test_what_a_url_says(url: str, place: Place) -> None:
    """One server, the nodes of a cluster, or sentinels and the name they know the store by."""
    assert place_of(url) == place


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://host", "begins with none of"),
        ("redis+cluster:/host", "begins with none of"),
        ("redis://user:hunter2", "cannot be read"),
        ("redis://[hunter2/0", "cannot be read"),
        ("redis+cluster://", "host:port"),
        ("redis+cluster://a:1,,b:2", "host:port"),
        ("redis+cluster://a:hunter2", "host:port"),
        ("redis+cluster://a:65536", "host:port"),
        ("redis+cluster://a/1", "no databases"),
        ("redis+sentinel://a:1", "service"),
        ("redis+sentinel://a:1/", "service"),
        ("redis+sentinel://a:1/main/one", "service"),
        ("unix+cluster://a", "begins with none of"),
    ],
)
def test_what_no_url_says(url: str, why: str) -> None:
    """It is refused, says what is wrong, and is not repeated."""
    with pytest.raises(ValueError, match=why) as told:
        place_of(url)
    assert "hunter2" not in str(told.value)


def test_a_password_is_not_shown_by_accident() -> None:
    """Neither that of the server nor that of the sentinels is in what a log would show."""
    place = place_of("redis+sentinel://u:hunter2@a/main?sentinel_password=hunter2")
    assert "hunter2" not in repr(place)
