"""Create, read, update and delete through Django's ORM; an assertion fails where something is not as it should be."""

import threading
from decimal import Decimal

import django

django.setup()

from django.db import IntegrityError, connection, transaction  # noqa: E402
from django.db.models import F, Sum  # noqa: E402

from tests.e2e.django_site.shop.models import Order, Product  # noqa: E402

THREADS = 8


def create_and_read() -> None:
    assert Product.objects.get(name="from the migration").price == 1
    tea = Product.objects.create(name="Tee ☕", price=Decimal("3.50"), tags=["hot", {"leaf": True}])
    assert Product.objects.get(pk=tea.pk).tags == ["hot", {"leaf": True}]
    Product.objects.bulk_create([Product(name=f"product {n}", price=n) for n in range(50)])
    assert Product.objects.filter(name__startswith="product").count() == 50
    assert sum(product.price for product in Product.objects.filter(price__lt=10).iterator(chunk_size=3)) == Decimal("49.50")
    made, created = Product.objects.get_or_create(name="product 1", defaults={"price": 5})
    assert (made.price, created) == (1, False)


def transactions() -> None:
    tea = Product.objects.get(name__startswith="Tee")
    with transaction.atomic():
        for n in range(3):
            Order.objects.create(product=tea, quantity=n + 1)
        try:
            with transaction.atomic():
                Product.objects.create(name=tea.name, price=0)
            raise AssertionError("two products of one name")
        except IntegrityError:
            pass
        locked = Product.objects.select_for_update().get(pk=tea.pk)
        locked.price = F("price") + 1
        locked.save()
    assert tea.orders.aggregate(total=Sum("quantity")) == {"total": 6}
    try:
        with transaction.atomic():
            Order.objects.all().delete()
            raise KeyError
    except KeyError:
        pass
    assert Order.objects.select_related("product").filter(product__name=tea.name).count() == 3


def threads() -> None:
    """A connection for each, more than the pool has."""

    def work() -> None:
        for _ in range(5):
            Product.objects.filter(name="product 7").update(price=F("price") + 1)
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert Product.objects.get(name="product 7").price == 7 + 5 * THREADS


def delete() -> None:
    deleted, _ = Product.objects.filter(name__startswith="Tee").delete()
    assert deleted == 4
    assert not Order.objects.exists()


if __name__ == "__main__":
    create_and_read()
    transactions()
    threads()
    delete()
    print("done")
