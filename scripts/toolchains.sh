#!/usr/bin/env bash
# Installs what the programs of MultiPL-E and the report's browser test need: Debian packages (as
# root) and, into .toolchains/, TypeScript. Safe to run again: installs only what is missing, and does nothing when nothing is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'toolchains: %s\n' "$*" >&2; }
# As the sandbox sees them: what lies elsewhere is of no use there.
found() { PATH=/usr/local/bin:/usr/bin:/bin command -v "$1" >/dev/null; }
present() { compgen -G "$1" >/dev/null; }

packages=()
found g++ || packages+=(g++)
{ found javac && found java; } || packages+=(default-jdk-headless)
present '/usr/share/java/javatuples.jar' || packages+=(libjavatuples-java)
found php || packages+=(php-cli)
present '/usr/lib/php/*/mbstring.so' || packages+=(php-mbstring)
found mcs || packages+=(mono-mcs)
found mono || packages+=(mono-runtime)
present '/usr/lib/mono/4.*/System.Core.dll' || packages+=(libmono-system-core4.0-cil)
present '/usr/lib/mono/4.*/System.Numerics.dll' || packages+=(libmono-system-numerics4.0-cil)
found bc || packages+=(bc)
found node || packages+=(nodejs)
found chromium || packages+=(chromium)
command -v npm >/dev/null || packages+=(npm)

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    say "missing: ${packages[*]}. Run as root: apt-get install --no-install-recommends ${packages[*]}"
    exit 3
  fi
  say "apt-get install ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
fi

typescript=5.9
installed=$(sed -n 's/^ *"version": "\([0-9]*\.[0-9]*\)\..*/\1/p' \
  .toolchains/node_modules/typescript/package.json 2>/dev/null || true)
if [ "$installed" != "$typescript" ]; then
  say "npm install typescript@$typescript into .toolchains/"
  npm install --prefix .toolchains --no-audit --no-fund --no-save --loglevel=error \
    "typescript@$typescript" >&2
fi
say "all there."
