"""How people are known, and log in; why somebody may."""

from freehold.config.schema import Settings
from freehold.config.trust import outgoing
from freehold.core.clock import Clock
from freehold.secure.keys import Keyring
from freehold.secure.network import Proxies
from freehold.secure.sessions import Sessions
from freehold.serve.browser.cookies import Cookies
from freehold.serve.browser.login import Login
from freehold.serve.directory import Directory
from freehold.serve.explain import Explainer
from freehold.serve.people import People
from freehold.serve.policies import LivePolicies
from freehold.serve.tenants import Tenants
from freehold.store.sql import SqlStore


def build_people(
    settings: Settings, tenants: Tenants, store: SqlStore, clock: Clock
) -> People | None:
    providers = settings.identity_providers
    if not providers:
        return None
    trust = outgoing(settings.network.ca_file)
    return People(providers, tenants, settings.server.environments, store, clock, trust)


def build_proxies(settings: Settings) -> Proxies | None:
    server = settings.server
    if not (server.trusted_proxies or server.proxy_certificates):
        return None
    return Proxies(server.trusted_proxies, server.proxy_certificates)


def build_cookies(settings: Settings) -> Cookies | None:
    """Only where somebody can log in with a browser does a cookie count."""
    origin = settings.server.public_url
    if origin is None or not any(each.client_id for each in settings.identity_providers):
        return None
    return Cookies(origin)


def build_login(
    settings: Settings, people: People | None, sessions: Sessions, keyring: Keyring
) -> Login | None:
    if people is None:
        return None
    return Login(people, sessions, keyring, settings.server.public_url)


def build_explainer(settings: Settings, store: SqlStore, clock: Clock) -> Explainer:
    """For a home that no gateway serves."""
    tenants = Tenants(store)
    people = build_people(settings, tenants, store, clock)
    directory = Directory(store, tenants)
    return Explainer(store, tenants, LivePolicies(store, clock), directory, people, clock)
