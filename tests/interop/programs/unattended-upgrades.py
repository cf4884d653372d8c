"""unattended-upgrades reports by its own function for hosts without mailx, which runs sendmail."""

import importlib.machinery
import importlib.util
import os
import sys

loader = importlib.machinery.SourceFileLoader("unattended_upgrade", "/usr/bin/unattended-upgrade")
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(module)
env = os.environ
with open(env["TEXT"], encoding="utf-8") as file:
    text = file.read()
everybody = ", ".join((env["TO"], env["ALSO"], env["COPY"], env["BLIND"]))
sys.exit(module._send_mail_using_sendmail(env["FROM"], everybody, env["SUBJECT"], text))
