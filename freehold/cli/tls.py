"""`freehold tls`: an authority, certificates of it, and what the gateway serves TLS with."""

import secrets
import socket
from collections.abc import Callable
from typing import Annotated

import typer

from freehold.cli.terminal.output import Json, console, errors_in_a_sentence, plain, print_json
from freehold.config import load
from freehold.config.home import Home, write_private
from freehold.config.schema import ServerSettings, Settings
from freehold.config.trust import outgoing
from freehold.core.errors import Code, UserError
from freehold.secure import authority, certificates
from freehold.serve.tls import Certificates, Files, context_of

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Certificates for those who have none."
)


def check(settings: Settings) -> None:
    """Raises `UserError(CONFIG_INVALID)` for files that TLS cannot be served or checked with:
    a server that finds out later would already have said that it serves."""
    server = settings.server
    for is_set, needed, sentence in (
        (server.tls_key, server.tls_certificate, "tls_key is of no use alone: set tls_certificate"),
        (server.client_ca, server.tls_certificate, "client_ca needs TLS here: set tls_certificate"),
        (server.proxy_certificates, server.client_ca, "proxy_certificates needs client_ca"),
    ):  # what looks guarded by certificates that nobody asks for is not
        if is_set and not needed:
            raise UserError(Code.CONFIG_INVALID, f"server.{sentence}.")
    for name in server.proxy_certificates:
        try:
            certificates.name(name)
        except UserError as error:
            raise UserError(
                Code.CONFIG_INVALID, f"server.proxy_certificates: {error.message}"
            ) from None
    files = Files.of(server)
    if files is not None:
        context_of(files)
    outgoing(settings.network.ca_file)


def serving(
    home: Home, server: ServerSettings, on_change: Callable[[], None]
) -> Certificates | None:
    """What new connections are greeted with; None for plain HTTP. Where clients are asked for
    certificates, commands on this home get one that ends with this process."""
    known = None
    if server.client_ca is not None:
        made = authority.passing(secrets.token_hex(16))
        write_private(home.client_certificate, made.certificate + made.key)
        known = made.certificate.decode()
    files = Files.of(server, known)
    return None if files is None else Certificates(files, on_change)


@app.command()
def init(
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address that clients use; repeat for several."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an authority of your own and a server certificate of it. Called again, the
    authority stays and the server certificate is made anew, which a running gateway takes up."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        home.create()
        named = [each.lower() for each in host or [socket.gethostname()]]
        hosts = list(dict.fromkeys([*named, "localhost", "127.0.0.1"]))
        for each in hosts:
            _checked_host(each)
        made = authority.Authority(home.tls)
        issued = made.server(hosts)
        certificate, key = home.tls / "server.pem", home.tls / "server.key"
        write_private(key, issued.key)
        write_private(certificate, issued.certificate)
    if as_json:
        print_json(
            {
                "authority": str(made.certificate_file),
                "certificate": str(certificate),
                "key": str(key),
                "hosts": hosts,
            }
        )
        return
    console.print(f"A certificate for {plain(', '.join(hosts))} is in {plain(certificate)}.")
    console.print("1. In freehold.yaml:", soft_wrap=True)
    console.print(
        f"server: {{tls_certificate: {plain(certificate)}, tls_key: {plain(key)}}}", soft_wrap=True
    )
    console.print(
        f"2. Nobody trusts it yet: give {plain(made.certificate_file)} to your clients "
        "(SSL_CERT_FILE, curl --cacert). Keep ca.key beside it to yourself.",
        soft_wrap=True,
    )
    console.print("3. Within a year call this again; a running gateway takes the new one up.")


@app.command()
def client(
    name: Annotated[str, typer.Argument(help="Who it is: spiffe://acme/web, or a DNS name.")],
    as_json: Json = False,
) -> None:
    """Make a client certificate of the authority that `freehold tls init` made."""
    with errors_in_a_sentence(as_json):
        home = load.home()
        if certificates.name(name).find("=") > 0 and "://" not in name:
            raise UserError(
                Code.INVALID_VALUE, "Call a client by a URI or a DNS name: it has no subject yet."
            )
        if not home.tls.exists():
            raise UserError(
                Code.NOT_FOUND, f"There is no authority in {home.tls}: run `freehold tls init`."
            )
        made = authority.Authority(home.tls)
        issued = made.client(name)
        folder = home.tls / "clients"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{_file_name(name)}.pem"
        write_private(path, issued.certificate + issued.key)
    if as_json:
        print_json({"name": name, "file": str(path), "authority": str(made.certificate_file)})
        return
    console.print(f"{plain(path)} holds the certificate of {plain(name)} and its key.")
    console.print(
        f"Let it in with `server: {{client_ca: {plain(made.certificate_file)}}}`, and make keys "
        f"for it alone with `freehold key create NAME --certificate {plain(name)}`.",
        soft_wrap=True,
    )


def _checked_host(text: str) -> None:
    if "=" in text or "://" in text or len(text) > 253:
        raise UserError(Code.INVALID_VALUE, f"{text[:60]!r} is no host: name one, or an address.")
    if ":" not in text:  # else an IPv6 address, which the certificate checks
        certificates.name(text)


def _file_name(name: str) -> str:
    return "".join(each if each.isalnum() or each in "-." else "_" for each in name).strip("._")
