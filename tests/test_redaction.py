"""What is taken out of text, and what stays (CONTRACT §6)."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.auth import make
from serve_app.redaction import DEPTH_MAX, GONE, PIECE_CHARS, redacted, redacted_tree
from serve_app.store import keys

MADE = make("acme-1")
KEY = MADE.text
KEPT = f"sg-acme-1-{MADE.key.key_id}-"
SECRET = KEY.removeprefix(KEPT)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl-_x"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/\nIBAAKC==\n-----END RSA PRIVATE KEY-----"
S = "s3cr3t"


@pytest.mark.parametrize("cut", [1, 10, len(SECRET) - 1, len(SECRET)])
@pytest.mark.parametrize(
    "around",
    [
        "@",
        "'@'",
        "(key @, revoked)",
        "Bearer%20@",
        "\\n@\\n",
        "x@",
        "Authorization: Bearer @",
        "{'x-api-key': '@'}",
    ],
)
def test_of_our_keys_the_public_part_stays(around: str, cut: int) -> None:
    """Tenant and id say which key it was; the secret goes, however little of it was copied."""
    text = around.replace("@", KEPT + SECRET[:cut])
    assert redacted(text) == around.replace("@", KEPT + GONE)


def planted(secret: str, *notations: str) -> list[tuple[str, str]]:
    return [(secret, notation.replace("@@", secret)) for notation in notations]


SHAPES = [
    *planted(JWT, "@@", "got @@.", "?id=@@&x=1", "%20@@", "\\n@@\\n", "(@@)"),
    *planted("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0", "two parts: @@", "@@."),
    *planted("eyJhbGciOiJIUzI1NiJ9", "cut: @@", "cut: @@."),
    *planted("abcdefghij0123456789", "sk-@@", "sk-proj-@@", "sk-ant-api03-@@", "nvapi-@@"),
    *planted("abcdefghij0123456789", "glpat-@@", "xoxb-@@", "xoxp-1-@@", "xai-@@", "\\nsk-@@"),
    *planted("abcdefghij0123456789", "ghp_@@", "gho_@@", "github_pat_@@_x", "hf_@@", "npm_@@"),
    *planted("abcdefghij0123456789", "sk_live_@@", "rk_test_@@", "gsk_@@", "AIza@@", "%3Dhf_@@"),
    *planted("ABCDEFGHIJ012345", "AKIA@@", "ASIA@@", "id 'AKIA@@'"),
    *planted("MIIEow+/", PEM, PEM.replace("\n", "\\n"), PEM[:-20], f"key '{PEM}' is"),
    *planted("IBAAKC==", PEM, PEM.replace("\n", "\\n"), f"{PEM}\nafter"),
]
HEADERS = [
    *planted(S, "Authorization: Bearer @@", "authorization: @@", "AUTHORIZATION: Basic @@"),
    *planted(S, "GET / HTTP/1.1\r\nAuthorization: Bearer @@\r\nHost: x", "authorization=@@"),
    *planted(S, 'Authorization: Digest username="u", response="@@"', "Authorization: Foo x @@"),
    *planted(S, "{'authorization': 'Bearer @@'}", '{"Authorization":"Bearer @@"}'),
    *planted(S, "[(b'authorization', b'Bearer @@'), (b'host', b'x')]", "(b'authorization', b'@@"),
    *planted(S, "[('x-api-key', '@@')]", '["x-api-key", "@@"]', "Headers({'x-api-key': '@@'})"),
    *planted(S, "X-API-Key: @@", "apikey: @@", "api_key=@@", "'apikey':'@@'", "api-key = @@"),
    *planted(S, "CF-Access-Client-Secret: @@", "(b'cf-access-client-secret', b'@@')"),
    *planted(S, "Cf-Access-Jwt-Assertion: @@", '"cf-access-jwt-assertion": "@@"'),
    *planted(S, "Proxy-Authorization: Basic @@", "[[b'proxy-authorization', b'@@']]"),
    *planted(S, "Cookie: a=b; sid=@@", 'Cookie: sid="@@"; a=b', "Set-Cookie: sid=@@; Path=/"),
    *planted(S, "{'cookie': 'sid=@@'}", "(b'set-cookie', b'sid=@@; HttpOnly')"),
    *planted(S, "x-sluicegate-internal-key: @@", "(b'x-sluicegate-proxy-key', b'@@')"),
    *planted(S, '{"authorization": ["Bearer @@"]}', "curl -H 'Authorization: Bearer @@' http://x"),
    *planted(
        S, '{"name": "Authorization", "value": "Bearer @@"}', "{'name':'apikey','value':'@@'}"
    ),
    *planted(S, 'authorization: Bearer "@@"', "sent Bearer @@-and-more"),
]
MEMBERS = [
    *planted(S, '{"password": "@@"}', "{'password': '@@'}", '{"password":"@@","x":1}'),
    *planted(S, '{"passwd": "@@", "x": "y"}', "{'new_password': '@@'}", '"old_password" : "@@"'),
    *planted(
        S, '"secret": "@@"', '"client_secret": "@@"', "client_secret=@@", '"clientSecret":"@@"'
    ),
    *planted(S, '"token": "@@"', "'token': b'@@'", "?token=@@&x=1", "&access_token=@@ HTTP/1.1"),
    *planted(S, '"access_token": "@@"', "'refresh_token': '@@'", '"captcha_token": "@@"'),
    *planted(S, "Login(username='u', password='@@')", "password: @@", "db_password = @@"),
    *planted(S, r"{\"password\": \"@@\"}", r'"{\\\"password\\\": \\\"@@\\\"}"', "password%3D@@"),
    *planted(S, "SLUICEGATE_API_KEY=@@", "AWS_SECRET_ACCESS_KEY=@@", "HF_TOKEN=@@", "PASSWORD=@@"),
    *planted(
        S, "invalid token: @@", "access_token: @@", "wrong client_secret: @@", '"token": ["@@"'
    ),
    *planted(S, "vllm serve --api-key @@ --port 1", "['vllm', '--api-key', '@@']", "--token=@@"),
    *planted(S, "%22password%22%3A%22@@%22%7D", "Namespace(api_key=['@@'], port=1)"),
    *planted(S, '{"password": "@@', "{'password': '@@\nnext line", "\\npassword=@@\\n"),
    *planted('a\\"s3cr3t', '{"password": "@@"}', "{'x': '{\"password\": \"@@\"}'}"),
    *planted("it\\'s s3cr3t, all of it", "{'password': '@@'}"),
    *planted('a\\\\\\"s3cr3t', '{\\"password\\": \\"@@\\"}'),
    *planted("swordfish", "password: @@", "client_secret: @@", "password=@@", "'token': '@@'"),
    *planted("271828", '{"password": @@, "x": 1}', "'secret': @@}", "token=@@"),
]
PLACES = [
    *planted(
        "pw-1", "redis://user:@@@host:6379/0", "redis://:@@@host", "rediss://u:@@@h/0 is down"
    ),
    *planted("pw-1", "https://@@@github.com/x", "amqp://u:x@@@y@h/", "'redis://:@@@[::1]:6379'"),
    *planted("p/w-1", "redis://:@@@host:6379/0", "redis://user:@@@host"),
    *planted(
        "bob", "@@@example.org", "<@@@mail.example.org>", "user @@@example.com.", "u=@@%40x.org"
    ),
    *planted("jürgen.x", "@@@exämple.de failed", "\\n@@@example.org", "'@@@example.org'"),
]


@pytest.mark.parametrize(("secret", "text"), SHAPES + HEADERS + MEMBERS + PLACES)
def test_what_is_a_secret_goes(secret: str, text: str) -> None:
    """By its shape, its place or its name, in whatever notation it stands, cut or whole."""
    shown = redacted(text)
    assert secret in text
    assert secret not in shown
    assert GONE in shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "req-0123456789abcdef01234567",
        f"key {MADE.key.key_id} of tenant acme-1 was revoked",
        "static-admin-1a2b3c4d",
        '{"key_id": "AbCdEfGhIjKl", "tenant": "acme", "class": "batch"}',
        '{"max_tokens": 8, "tokens": 12, "input_tokens": 5, "output_tokens": 5}',
        "max_tokens: 8, max_completion_tokens=8, output_tokens: 5, stop_token_ids=[2]",
        '"usage": {"prompt_tokens": 3, "total_tokens": 11, "cached_tokens": 0}',
        '{"token_type": "bearer", "expires_at": "2026-01-02T03:04:05Z"}',
        "first token: 110.5ms, per token: 12 ms, time to first token: 0.3",
        "HuggingFaceTB/SmolLM2-135M-Instruct, org/model-7b:Q4_K_M, smollm2-135m",
        "INFO 2026-01-02 03:04:05,678 sluicegate.line replica r-1 at 127.0.0.1:41233 has 8 seats",
        "2026-01-02T03:04:05.678+00:00 [::1]:8000 GET /v1/auth/api-keys?limit=5&after=17 200 1.2ms",
        "/home/u/.local/share/sluicegate/logs/engine-m-r.log",
        'File "serve_app/auth/key.py", line 59, in parse',
        "http://127.0.0.1:8000/v1/models http://[::1]:8000/health redis://127.0.0.1:6379/0",
        "http://127.0.0.1:8000/a@b and https://x.org/@scope/name",
        "The Authorization header is not 'Bearer <key>'; send 'Authorization: Bearer <key>'.",
        "No API key given; send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
        "This API key is unknown, revoked or expired. Ask your operator for a new one.",
        "invalid token: expired; wrong secret: try again; the token is not for this audience",
        "['vllm', '--api-key-file', 'x.txt', '--tokenizer', 'auto', '--max-tokens', '5']",
        "bearer authentication is required; a basic test of cookies and passwords",
        "auth.body_api_key=false, secret_env='SLUICEGATE_CAPTCHA_SECRET', public_key_file=null",
        "{'password': None, 'api_key': null, \"secret\": false, 'token': ''}",
        '["authorization", "content-type", "x-api-key", "x-request-id"]',
        "sg:{t:default}:rpm:AbCdEfGhIjKl sg:{t:default}:key:AbCdEfGhIjKl sg:session-secret",
        "sg-0123456789abcdef0 is a security group; sg-acme- begins a key",
        "risk-assessment-of-the-year, desk-lamp-and-other-things, hf_transfer, npm_config_cache",
        "pip install torch@2.13.0, actions/checkout@v4.1, postgres@localhost, x = a @ b",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "expected '-----BEGIN PUBLIC KEY-----'",
        "vllm:time_per_output_token_seconds_count 5, tokenizer=auto, tokens=5, keys=3",
        f"{GONE} {KEPT}{GONE} redis://{GONE}@host password={GONE}",
    ],
)
def test_what_says_where_to_look_stays(text: str) -> None:
    """Ids, names, times, counts, paths and prose are left as they are."""
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /?token=abc&x=1 HTTP/1.1", f"GET /?token={GONE}&x=1 HTTP/1.1"),
        ('{"password": "a\\"b", "max_tokens": 8}', f'{{"password": "{GONE}", "max_tokens": 8}}'),
        ("[(b'cookie', b'a=b'), (b'host', b'x')]", f"[(b'cookie', b'{GONE}'), (b'host', b'x')]"),
        ("Authorization: Bearer x\r\nHost: y", f"Authorization: Bearer {GONE}\r\nHost: y"),
        ("redis://u:p@host:6379/0 is down", f"redis://{GONE}@host:6379/0 is down"),
        (f"Bearer {KEY} expired", f"Bearer {KEPT}{GONE} expired"),
        ("{'token': 12, 'tokens': 12}", f"{{'token': {GONE}, 'tokens': 12}}"),
        ("f(password='x', user='y')", f"f(password='{GONE}', user='y')"),
        ("mail bob@example.org.", f"mail {GONE}."),
    ],
)
def test_only_the_secret_goes(text: str, shown: str) -> None:
    """What stands around it is still there to read."""
    assert redacted(text) == shown


PIECES = st.sampled_from(
    [case[1] for case in SHAPES + HEADERS + MEMBERS + PLACES]
    + ["sg-", "sk-", "eyJ", "://", "@", "%40", "Bearer ", "token", "password", "cookie", "secret"]
    + [*"=:\"'\\\n ,;&/()[]{}<>.-_aZ9", '\\"', "\\n", "=>", "%3D", GONE, "İ", "ß", "a.bc"]
)


@settings(max_examples=500)
@given(st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    """What was redacted stays as it is, so a text may pass several hands."""
    once = redacted(text)
    assert redacted(once) == once


HOSTILE = [
    *["a", "sg-", "sg-a-", "sg-aaaaaaaaaaaa-", "sk-", "eyJ", "eyJaaaaa.", "-----BEGIN ", "AKIA"],
    *["://", "://:", "://a:b/", "a@", "a@b.", "@", "%40", "_", "hf_", "token", "token=", "token: "],
    *["token:", 'token":"', "token\\", '("token","', "authorization: ", "authorization: bearer "],
    *['cookie: a="', "password='", 'password="\\', 'password=\\\\"', "bearer ", "\\ntoken: b "],
    *["key\\\\\\\\", "\\", '"', " ", "\n", "é", "İ", "=", "-----BEGIN PRIVATE KEY-----"],
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("head", ["", "x@", 'password="', "authorization: ", "a://", "token: "])
def test_no_text_is_slow(piece: str, head: str) -> None:
    """100 kB of anything take milliseconds; the time grows with the length alone."""
    text = (head + piece * (100_000 // len(piece) + 1))[:100_000]
    began_s = time.process_time()
    redacted(text)
    assert time.process_time() - began_s < 1.0  # about 0.01 to 0.06; a square would be minutes


@pytest.mark.parametrize("secret", [KEY, JWT, PEM, "bob@example.org", f'password: "{S} {S}"'])
@pytest.mark.parametrize("fill", ["x ", "bob@a.org ", "@ a://"])
def test_no_secret_hides_at_a_cut(secret: str, fill: str) -> None:
    """Long texts are searched in pieces: wherever a secret lies across a cut, it goes."""
    around = fill * 40_000
    wanted = redacted(secret)
    gone = secret[-10:-2]
    for before in range(0, len(secret) + 2, 3):
        at = PIECE_CHARS - before
        told = redacted(around[:at] + f" {secret} " + around[: PIECE_CHARS * 2])
        assert gone not in told
        assert wanted in told or fill != "x "


def test_the_pieces_of_a_long_text_make_it_whole() -> None:
    """What is no secret is there once, to the letter, at every cut."""
    text = " ".join(map(str, range(60_000)))
    assert redacted(text) == text


def test_a_tree_keeps_its_shape() -> None:
    """Texts, names and what stands under a secret's name are redacted; the rest is as it was."""
    tree = {
        "name": "bob@example.org",
        "limits": {"requests_per_minute": 5, "tokens": None},
        "metadata": {"api_key": "x", "token": 17, KEY: [KEY, {"password": ["a", "b"]}]},
        "models": ["m", "n"],
        "secret": "",
        "expires_at": None,
        "pair": ("a", 1),
    }
    assert redacted_tree(tree) == {
        "name": GONE,
        "limits": {"requests_per_minute": 5, "tokens": None},
        "metadata": {
            "api_key": GONE,
            "token": GONE,
            KEPT + GONE: [KEPT + GONE, {"password": GONE}],
        },
        "models": ["m", "n"],
        "secret": "",
        "expires_at": None,
        "pair": ("a", 1),
    }


def test_a_tree_ends() -> None:
    """A tree that holds itself is cut off, so nothing runs for ever."""
    tree: dict[str, object] = {"x": 1}
    tree["self"] = tree
    assert str(redacted_tree(tree)).count("self") <= DEPTH_MAX


def test_the_store_keys_are_no_secrets() -> None:
    """Names of things in the store stand in logs as they are."""
    for name in (keys.TENANTS, keys.SESSION_SECRET, keys.key_record("t", "AbCdEfGhIjKl")):
        assert redacted(f"no such key: {name}") == f"no such key: {name}"
