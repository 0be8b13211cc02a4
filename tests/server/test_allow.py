"""Where completions are offered."""

import os
import sys
from pathlib import Path

import pytest

from star_lsp.allow import completion_allowed
from star_lsp.settings import CompletionSettings

SECRET_FILES = """
.env .env.local .envrc prod.env server.key ca.p8 a.p12 a.pfx release.jks debug.keystore a.kdbx a.ppk a.kdb
id_rsa id_rsa.old id_dsa id_ecdsa id_ed25519 ssh_host_rsa_key a.gpg a.asc age.agekey host.keytab work.ovpn
credentials credentials.json .credentials.yml gcp-credentials.json aws_credentials.csv app-credentials.yml
secrets.yaml secret.yaml secrets.toml app-secrets.json db_secrets.py k8s-secret.yml prod.secrets.yml
secrets/db.txt secret/a.py .secrets/x deploy/secrets/prod/app.yaml
.htpasswd .htdigest .netrc _netrc .pgpass pgpass.conf .my.cnf .git-credentials .npmrc .yarnrc.yml .pypirc
.terraformrc .dockercfg .s3cfg .boto rclone.conf
.vault-token .vault_pass.txt auth.json token.json wp-config.php
terraform.tfstate terraform.tfstate.backup prod.tfvars prod.auto.tfvars.json
service-account.json my-service_account-1.json gcp.serviceaccount.json app-firebase-adminsdk-x1.json
client_secret_123.json kubeconfig kubeconfig.yaml prod.kubeconfig .kube/config .docker/config.json
.aws/credentials .aws/config .azure/tokens .ssh/config .gnupg/x .oci/config .password-store/a.txt
.config/gcloud/x.db .config/gh/hosts.yml .git/config .m2/settings.xml
"""
PLAIN_FILES = """
a.py environment.py env.py keys.py keyboard.ts monkey.go tokenizer.json package.json config.json settings.xml
secretary.py credit.py shadow/dom.ts passwords.py auth.py tokens.ts state.tf main.tf service.json account.json
Dockerfile docker-compose.yml .gitignore .git/HEAD .github/workflows/ci.yml kube.py aws.py known_hosts.py
"""


@pytest.mark.parametrize(
    ("language", "path", "allowed"),
    [
        ("python", "/home/me/a.py", True),
        ("python", "", True),
        ("", "/home/me/a", True),
        ("dotenv", "/home/me/.env", False),
        ("dotenv", "/home/me/.ENV.local", False),
        ("plaintext", "C:\\Users\\me\\server.pem", False),
        ("plaintext", "/home/me/.ssh/config", False),
        ("plaintext", "/home/me/.aws/credentials", False),
        ("json", "/p/credentials/google.json", False),
        ("yaml", "/p/secrets.yaml", False),
        ("python", "/p/mysecrets.py", True),
        *(("", f"/p/{name}", False) for name in SECRET_FILES.split()),
        *(("", f"/p/{name}".upper(), False) for name in SECRET_FILES.split()),
        *(("", f"C:\\p\\{name}".replace("/", "\\"), False) for name in SECRET_FILES.split()),
        *(("", f"/p/{name}", True) for name in PLAIN_FILES.split()),
        ("python", "/p/environment.py", True),
    ],
)
def test_secrets_are_left_alone_by_default(language: str, path: str, allowed: bool) -> None:
    assert (completion_allowed(CompletionSettings(), language, path) is None) is allowed


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "notes.txt").write_text("x")
    (tmp_path / "plain.txt").symlink_to(tmp_path / ".ssh" / "notes.txt")
    (tmp_path / "folder").symlink_to(tmp_path / ".ssh")
    (tmp_path / "other.txt").write_text("x")
    settings = CompletionSettings()
    for name in ("plain.txt", "folder/notes.txt", "folder/new.txt", "other/../folder/new.txt"):
        assert completion_allowed(settings, "", str(tmp_path / name)) is not None
    assert completion_allowed(settings, "", str(tmp_path / "other.txt")) is None


def test_a_path_of_another_machine_is_not_looked_up_in_the_folder_where_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secrets").mkdir()
    monkeypatch.chdir(tmp_path / "secrets")
    for path in ("", "a.py", "D:\\a.py" if sys.platform != "win32" else "a.py"):
        assert completion_allowed(CompletionSettings(), "", path) is None
    assert completion_allowed(CompletionSettings(), "", os.fspath(tmp_path / "secrets" / "a.py")) is not None


@pytest.mark.parametrize("name", ["server.pem.", "server.pem ", "server.pem::$DATA", "id_rsa. ."])
def test_other_spellings_of_a_name_on_windows_are_no_way_around(name: str) -> None:
    assert completion_allowed(CompletionSettings(), "", f"C:\\p\\{name}") is not None


def test_languages_and_globs_of_the_user_decide() -> None:
    only_go = CompletionSettings(languages={"*": False, "go": True})
    assert completion_allowed(only_go, "go", "") is None
    assert completion_allowed(only_go, "python", "") == (
        "Completions are switched off for python; completion.languages says where they are offered."
    )
    assert completion_allowed(CompletionSettings(languages={"go": False}), "python", "") is None
    some = CompletionSettings(exclude=("*.{lock,min.js}", "vendor/**", "/abs/x.py"))
    for path in ("/p/a.lock", "/p/b.min.js", "/p/vendor/a/b.go", "/abs/x.py"):
        assert completion_allowed(some, "x", path) is not None
    for path in ("/p/a.js", "/p/abs/x.py", "/p/myvendor/a.go"):
        assert completion_allowed(some, "x", path) is None
    assert completion_allowed(CompletionSettings(enabled=False), "go", "") is not None
