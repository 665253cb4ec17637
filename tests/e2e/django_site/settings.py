"""Django's settings. There is no mysqlclient: PyMySQL stands in for it."""

import json
import os

import pymysql

pymysql.install_as_MySQLdb()

SECRET_KEY = "for tests only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "tests.e2e.django_site.shop"]
DATABASES = {"default": json.loads(os.environ["DJANGO_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
