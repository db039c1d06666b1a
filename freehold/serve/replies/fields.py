from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0)]
