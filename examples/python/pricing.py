"""Prices an order from a price list: an executor as a class, with typed input and output."""

from decimal import Decimal

from pydantic import BaseModel, Field

from prokos.tde import BusinessError, Context, Executor


class Line(BaseModel):
    article: str
    pieces: int = Field(gt=0)


class Order(BaseModel):
    lines: list[Line] = Field(min_length=1)


class Price(BaseModel):
    total: Decimal
    discount: Decimal


class Pricing(Executor[Order, Price]):
    async def start(self) -> None:
        self.prices = {name: Decimal(price) for name, price in self.settings["prices"].items()}

    async def execute(self, data: Order, context: Context) -> Price:
        if unknown := sorted({line.article for line in data.lines} - self.prices.keys()):
            raise BusinessError("UNKNOWN_ARTICLE", f"no price for {', '.join(unknown)}", {"unknown": unknown})
        full = sum((self.prices[line.article] * line.pieces for line in data.lines), Decimal())
        discount = full / 10 if full >= 100 else Decimal()
        context.log.info("priced", lines=len(data.lines), total=str(full - discount))
        return Price(total=round(full - discount, 2), discount=round(discount, 2))
