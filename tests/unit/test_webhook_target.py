from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from inferno import errors
from inferno.webhooks.target import MAX_URL_CHARACTERS, Target, check_url


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("https://example.com/webhook", ("https", "example.com", 443, "/webhook"), "example.com"),
        ("HTTP://Example.COM:8080", ("http", "example.com", 8080, "/"), "example.com:8080"),
        ("http://example.com:80?a=1&b=%20", ("http", "example.com", 80, "/?a=1&b=%20"), "example.com"),
        ("https://[2001:DB8::1]:444/x", ("https", "2001:db8::1", 444, "/x"), "[2001:db8::1]:444"),
        ("http://10.1.2.3/@x:y", ("http", "10.1.2.3", 80, "/@x:y"), "10.1.2.3"),
        ("http://my_receiver/hook", ("http", "my_receiver", 80, "/hook"), "my_receiver"),
        ("https://xn--bcher-kva.example/", ("https", "xn--bcher-kva.example", 443, "/"), "xn--bcher-kva.example"),
    ],
)
def test_the_parts_of_a_url(url: str, target: tuple[str, str, int, str], authority: str) -> None:
    assert check_url(url) == Target(*target)
    assert check_url(url).authority == authority


@pytest.mark.acceptance("K5")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begin with"),
        ("example.com/hook", "begin with"),
        ("ftp://example.com/", "begin with"),
        ("file:///etc/passwd", "begin with"),
        ("gopher://127.0.0.1:6379/_x", "begin with"),
        ("unix:///run/x.sock", "begin with"),
        ("https:/example.com", "begin with"),
        (" https://example.com", "begin with"),
        ("https://user@example.com/", "user name"),
        ("https://user:pass@example.com/", "user name"),
        ("https://example.com:80@127.0.0.1/", "user name"),
        ("http://127.0.0.1\\@ok/", "user name"),
        ("http://ok\\.example/", "ASCII"),
        ("https:///hook", "ASCII"),
        ("https://", "ASCII"),
        ("https://exa mple.com/", "ASCII"),
        ("https://example.com/a b", "ASCII"),
        ("https://example.com/\n", "ASCII"),
        ("https://example.com\n", "ASCII"),
        ("https://example.com/\r\nHost: x", "ASCII"),
        ("https://example.com/\x00", "ASCII"),
        ("https://example.com/#part", "ASCII"),
        ("https://bücher.example/", "ASCII"),
        ("http://127\u30020\u30020\u30021/", "ASCII"),
        ("http://\uff11\uff12\uff17.0.0.1/", "ASCII"),
        ("http://\u24dbocalhost/", "ASCII"),
        ("http://127%2e0%2e0%2e1/", "ASCII"),
        ("http://[fe80::1%25eth0]/", "ASCII"),
        ("http://[::1/", "ASCII"),
        ("http://::1/", "ASCII"),
        ("http://example.com:x/", "ASCII"),
        ("http://example.com:123456/", "ASCII"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://2130706433/", "host"),
        ("http://0x7f000001/", "host"),
        ("http://0x7f.1/", "host"),
        ("http://127.1/", "host"),
        ("http://0177.0.0.1/", "host"),
        ("http://127.0.0.01/", "host"),
        ("http://1.2.3.4.5/", "host"),
        ("http://example.0x/", "host"),
        ("http://256.1.1.1/", "host"),
        ("http://[1.2.3.4]/", "host"),
        ("http://[::1::]/", "host"),
        ("http://example.com./", "host"),
        ("http://example..com/", "host"),
        ("http://.example.com/", "host"),
        ("http://-example.com/", "host"),
        ("http://./", "host"),
        (f"http://{'a' * 64}.com/", "host"),
        (f"http://{'a.' * 127}com/", "host"),
    ],
)
def test_urls_that_could_be_read_in_two_ways(url: str, reason: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=reason) as caught:
        check_url(url)
    assert caught.value.field == "webhook_url"


def test_the_longest_url() -> None:
    start = "https://example.com/"
    longest = start + "a" * (MAX_URL_CHARACTERS - len(start))
    assert check_url(longest).path == longest.removeprefix("https://example.com")
    with pytest.raises(errors.InvalidRequest, match="2048"):
        check_url(longest + "a")


@example("http://a/[::1]@x")
@example("http://a?@b:1/")
@given(st.text("a1.-_:/?#@[]\\%&=x0 \t", max_size=20).map(lambda rest: f"http://{rest}"))
def test_other_parsers_see_the_same_host(url: str) -> None:
    try:
        target = check_url(url)
    except errors.InvalidRequest:
        return
    assert (urlsplit(url).hostname, urlsplit(url).port or 80) == (target.host, target.port)
    assert (httpx.URL(url).host, httpx.URL(url).port or 80) == (target.host, target.port)
