"""Logging in with a browser, and every way in which somebody else could gain by it."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from freehold.core.binding import Environment
from tests.harness import asked
from tests.issuer import RSA_FOREIGN, token
from tests.serve.people import (
    CLIENT,
    COOKIE,
    Person,
    Place,
    bearer,
    browsing,
    people,
    place_of,
    proof,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
place = place_of()


async def test_somebody_logs_in_sees_who_they_are_and_logs_out(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        welcome = await ada.go("/console")
        assert "With corp" in welcome.text
        assert issuer.url not in welcome.text
        page = await ada.log_in(email="<b>ada</b>@example.org")
        assert page.status_code == 200
        for shown in ("&lt;b&gt;ada&lt;/b&gt;@example.org", "default", "dev", "prod", "user",
                      "fake-model", "this one"):  # fmt: skip
            assert shown in page.text, shown
        assert "<b>ada" not in page.text
        page = await ada.go("/console")
        out = await ada.send("/console/logout", csrf=proof(page))
        assert out.status_code == 303
        assert ada.cookie is None
        assert "With corp" in (await ada.go("/console")).text
        trail = [json.loads(each.body) for each in world.gateway.store.audit_trail(world.tenant_id)]
        done = [
            (each["act"], each["operation"], each["principal"])
            for each in trail
            if each["act"].startswith("session.")
        ]
        (person,) = {principal for _, _, principal in done}
        assert person.startswith("per_")
        assert done == [
            ("session.open", "GET /console/callback", person),
            ("session.end", "POST /console/logout", person),
        ]
        assert "example.org" not in json.dumps(trail)


async def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        page = await ada.log_in()
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script" not in policy + page.text
        assert "frame-ancestors 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        for link in re.findall(r'(?:src|href|action)="([^"]*)"', page.text):
            assert link.startswith("/console"), link
        style = await ada.go("/console/style.css")
        assert style.headers["content-type"].startswith("text/css")
        assert "url(" not in style.text


async def test_what_is_sent_to_the_provider_binds_the_login_to_this_browser(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        begun = await ada.http.get("/console/login")
        sent = parse_qs(urlsplit(begun.headers["location"]).query)
        assert sent["redirect_uri"] == [f"{world.url}/console/callback"]
        assert sent["code_challenge_method"] == ["S256"]
        assert sent["client_id"] == [CLIENT]
        again = parse_qs(urlsplit((await ada.http.get("/console/login")).headers["location"]).query)
        for name in ("state", "nonce", "code_challenge"):
            assert len(sent[name][0]) >= 43
            assert sent[name] != again[name], "each login has its own"


async def _back(person: Person) -> str:
    """Where the provider sends a browser back to, with a good code."""
    begun = await person.http.get("/console/login")
    answer = await person.http.get(begun.headers["location"])
    return str(answer.headers["location"])


async def test_a_login_cannot_be_ended_by_another_browser_or_twice(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        back = await _back(ada)
        async with browsing(world, issuer) as eve:
            assert (await eve.http.get(back)).status_code == 400
            await eve.http.get("/console/login")
            assert (await eve.http.get(back)).status_code == 400, "her own login is another"
            assert eve.cookie is None
        assert (await ada.http.get(back)).status_code == 303
        assert ada.cookie
        again = await ada.http.get(back)
        assert again.status_code == 400
        assert "Begin it again" in again.text


_UNFIT: tuple[tuple[dict[str, object], str], ...] = (
    ({"nonce": "of-another-login"}, "another login"),
    ({"nonce": ...}, "another login"),
    ({"at_hash": "c29tZXRoaW5nLWVsc2U"}, "access token"),
    ({"aud": "mail"}, "somebody else"),
    ({"aud": ["mail", CLIENT]}, "somebody else"),
    ({"azp": "mail"}, "somebody else"),
    ({"exp": 1}, "expired"),
    ({"iss": "https://evil.example"}, "issuer"),
    ({"key": RSA_FOREIGN}, "signature"),
    ({"headers": {"typ": "at+jwt"}}, "another kind"),
    ({"sub": ""}, "subject"),
)


async def test_an_id_token_that_does_not_fit_lets_nobody_in(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        for changes, said in _UNFIT:
            refused = await ada.log_in(**changes)
            assert refused.status_code in (400, 401), changes
            assert said in refused.text, changes
            assert ada.cookie is None
        assert "this one" in (await ada.log_in(aud=["mail", CLIENT], azp=CLIENT)).text


async def test_what_comes_back_is_answered_in_words_and_leads_nowhere(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        for query in ("", "?code=x", "?state=x&code=x", "?error=access_denied&state=x",
                      "?code=x&state=x&next=https://evil.example", "?state=%00&code=%0a",
                      "?code=a&code=b", f"?{'a=b&' * 100}"):  # fmt: skip
            await ada.http.get("/console/login")
            refused = await ada.http.get(f"/console/callback{query}")
            assert refused.status_code == 400, query
            assert "location" not in refused.headers
            assert "Back" in refused.text
        back = await _back(ada)
        denied = await ada.http.get(re.sub("code=[^&]*", "error=access_denied", back))
        assert "access_denied" in denied.text
        elsewhere = await ada.http.get("/console/login?provider=https://evil.example")
        assert elsewhere.status_code == 404


async def test_a_login_makes_a_new_session_and_ends_the_one_before(place: Place) -> None:
    """Also when somebody planted theirs in this browser."""
    world, issuer = place
    async with browsing(world, issuer) as ada:
        await ada.log_in(sub="eve")
        planted = ada.cookie
        page = await ada.log_in(sub="ada", email="ada@example.org")
        assert ada.cookie != planted
        assert "ada@example.org" in page.text
        ada.http.cookies.clear()
        ada.http.cookies.set(COOKIE, planted or "", domain="127.0.0.1")
        assert "With corp" in (await ada.go("/console")).text
        invented = "fhs_" + "a" * 52
        ada.http.cookies.clear()
        ada.http.cookies.set(COOKIE, invented, domain="127.0.0.1")
        await ada.log_in()
        cookies = [each.value for each in ada.http.cookies.jar if each.name == COOKIE]
        assert invented not in cookies[-1:]


async def test_other_sites_change_nothing_with_the_cookie(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        page = await ada.log_in(groups=["boss"])
        right = proof(page)
        key = {"name": "x"}
        path = "/admin/v1/keys"
        ours = {"origin": world.url, "x-freehold-csrf": right}
        for headers in (
            {},
            {"x-freehold-csrf": right},
            {"origin": world.url},
            {**ours, "origin": "https://evil.example"},
            {**ours, "origin": "null"},
            {**ours, "sec-fetch-site": "cross-site"},
            {**ours, "sec-fetch-site": "same-site"},
            {**ours, "x-freehold-csrf": "0" * 64},
        ):
            refused = await ada.http.post(path, json=key, headers=headers)
            assert refused.status_code == 403, headers
            assert refused.json()["error"]["code"] == "cross_site_request"
        assert (await ada.http.post(path, json=key, headers=ours)).status_code == 201
        assert (await ada.http.get(path)).status_code == 200, "reading takes the cookie alone"
        for form, origin in (({}, None), ({"csrf": "0" * 64}, None),
                             ({"csrf": right}, "https://evil.example")):  # fmt: skip
            refused = await ada.send("/console/logout", origin=origin, **form)
            assert refused.status_code == 403
        assert "this one" in (await ada.go("/console")).text


async def test_a_browsers_session_is_no_key_and_a_key_is_no_cookie(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        await ada.log_in()
        secret = ada.cookie or ""
        async with httpx2.AsyncClient(base_url=world.url) as http:
            refused = await http.get("/v1/models", headers=bearer(secret))
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_session"
            refused = await http.get("/v1/models", headers={"cookie": f"{COOKIE}={world.key}"})
            assert refused.json()["error"]["code"] == "missing_api_key"
            twice = {"cookie": f"{COOKIE}={secret}; {COOKIE}={secret}"}
            assert (await http.get("/v1/models", headers=twice)).status_code == 401


async def test_people_end_their_own_sessions_and_nobody_elses(place: Place) -> None:
    world, issuer = place
    async with (
        browsing(world, issuer) as ada,
        browsing(world, issuer) as phone,
        browsing(world, issuer) as bob,
    ):
        await ada.log_in(sub="ada of two")
        await phone.log_in(sub="ada of two")
        page = await bob.log_in(sub="bob of one")
        (bobs,) = re.findall(r'name="session" value="(ses_[^"]*)"', page.text)
        page = await ada.go("/console")
        found = re.findall(r'name="session" value="(ses_[^"]*)"', page.text)
        assert len(found) == 2
        assert bobs not in found
        await ada.send("/console/sessions/end", csrf=proof(page), session=bobs)
        assert "this one" in (await bob.go("/console")).text
        ended = await ada.send("/console/sessions/end", csrf=proof(page), session=found[0])
        assert ended.status_code == 303
        assert "With corp" in (await phone.go("/console")).text
        assert "this one" in (await ada.go("/console")).text


async def test_with_tls_the_cookies_are_of_this_host_alone(tmp_path: Path) -> None:
    more = {"public": False, "public_url": "https://LLM.example.com:443/"}
    async with people(tmp_path, **more) as (world, issuer), browsing(world, issuer) as ada:
        host = {"host": "llm.example.com"}
        begun = await ada.http.get("/console/login", headers=host)
        cookie = begun.headers["set-cookie"]
        assert cookie.startswith("__Host-freehold-login=corp~")
        for flag in ("; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/;"):
            assert flag in cookie
        assert "Domain" not in cookie
        sent = parse_qs(urlsplit(begun.headers["location"]).query)
        assert sent["redirect_uri"] == ["https://llm.example.com/console/callback"]
        query = urlsplit((await ada.http.get(begun.headers["location"])).headers["location"]).query
        shown = {**host, "cookie": cookie.partition(";")[0]}
        done = await ada.http.get(f"/console/callback?{query}", headers=shown)
        session = next(
            each for each in done.headers.get_list("set-cookie") if "session=fhs_" in each
        )
        assert session.startswith("__Host-freehold-session=fhs_")
        assert "; Secure" in session
        plain = session.partition(";")[0].removeprefix("__Host-")
        unseen = await ada.http.get("/console", headers={**host, "cookie": plain})
        assert "With corp" in unseen.text


async def test_only_the_keyed_hash_of_a_session_is_stored(place: Place) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        await ada.log_in()
        secret = (ada.cookie or "").encode()
        assert len(secret) == 56
    for file in world.home.path.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes(), file


async def test_a_client_with_a_secret_shows_it_to_the_provider_alone(tmp_path: Path) -> None:
    file = tmp_path / "client.secret"
    file.write_text("s3cr:et/+\n")
    given = {"client_secret_file": str(file)}
    async with people(tmp_path / "home", provider=given) as (world, issuer):
        issuer.client_secret = "s3cr%3Aet%2F%2B"
        async with browsing(world, issuer) as ada:
            assert "this one" in (await ada.log_in()).text
            clients = await ada.http.get("/admin/v1/login")
            assert clients.json() == {"data": []}, "no command can keep it"
        issuer.client_secret = "another"
        async with browsing(world, issuer) as ada:
            refused = await ada.log_in()
            assert "did not take the code" in refused.text
            assert "s3cr" not in refused.text


async def test_a_session_does_what_its_groups_may_in_the_environment_that_it_names(
    place: Place,
) -> None:
    world, issuer = place
    async with browsing(world, issuer) as ada:
        page = await ada.log_in()
        headers = {"origin": world.url, "x-freehold-csrf": proof(page)}
        body = asked("hello")
        answer = await ada.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        there = {**headers, "x-freehold-environment": Environment.PROD.value}
        elsewhere = await ada.http.post("/v1/chat/completions", json=body, headers=there)
        assert elsewhere.status_code == 404
        assert (await ada.http.get("/admin/v1/keys")).status_code == 403
        me = (await ada.http.get("/admin/v1/whoami")).json()
        assert (me["kind"], me["roles"], me["models"]) == ("person", ["user"], ["fake-model"])
        assert json.dumps(me).count("per_") == 1
        assert {row["key_id"] for row in world.records()} == {me["id"]}


async def test_nobody_logs_in_where_the_settings_do_not_say_how(tmp_path: Path) -> None:
    async with people(tmp_path, public=False) as (world, issuer), browsing(world, issuer) as ada:
        assert "Nobody logs in here" in (await ada.go("/console")).text
        for path in ("/console/login", "/console/login?provider=corp", "/console/callback?code=x"):
            assert (await ada.http.get(path)).status_code == 404
        cookie = {"cookie": f"{COOKIE}=fhs_x"}
        assert (await ada.http.get("/v1/models", headers=cookie)).status_code == 401
        assert (await ada.http.get("/v1/models", headers=bearer(token(issuer)))).is_success
