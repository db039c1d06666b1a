from pydantic import BaseModel


class LoginClient(BaseModel):
    name: str
    issuer: str
    client_id: str
    scopes: list[str]


class LoginClients(BaseModel):
    data: list[LoginClient]
