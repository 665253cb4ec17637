from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Product",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True)),
                ("name", models.CharField(max_length=20)),
                ("price", models.DecimalField(max_digits=10, decimal_places=2)),
            ],
        ),
    ]
