from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def first_product(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("shop", "Product").objects.create(name="from the migration", price=1)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.RunPython(first_product, migrations.RunPython.noop),
        migrations.AlterField("Product", "name", models.CharField(max_length=50, unique=True)),
        migrations.AddField("Product", "tags", models.JSONField(default=list)),
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True)),
                ("placed", models.DateTimeField(auto_now_add=True)),
                ("quantity", models.IntegerField(default=1)),
                ("product", models.ForeignKey("shop.Product", on_delete=models.CASCADE, related_name="orders")),
            ],
        ),
    ]
