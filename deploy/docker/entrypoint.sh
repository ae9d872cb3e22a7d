#!/bin/sh
# First process of every container: takes secrets from files, then becomes the command.
#
#   AWS_SECRET_ACCESS_KEY_FILE=/run/secrets/s3_secret_key entrypoint.sh crosstie listen …
#
# runs the command with AWS_SECRET_ACCESS_KEY set to what the file holds, and without the …_FILE variable. A secret is thus in no
# image, no declaration and no `inspect` of a container. Messages name variables and files, never what is in them.
set -eu
# A secret is not to be seen because someone traces a shell.
set +x

# The secrets that programs of this image read. A name beside these is not turned into a variable.
known="
AWS_ACCESS_KEY_ID
AWS_SECRET_ACCESS_KEY
AWS_SESSION_TOKEN
CROSSTIE_LISTEN_SIGNATURE
CROSSTIE_LISTEN_TOKEN
CROSSTIE_SITE_TOKEN
PREFECT_API_AUTH_STRING
PREFECT_API_KEY
PREFECT_SERVER_API_AUTH_STRING
PREFECT_SERVER_DATABASE_PASSWORD
"

# 2 is what crosstie itself answers to bad input.
refuse() {
    printf 'entrypoint: %s\n' "$1" >&2
    exit 2
}

[ $# -gt 0 ] || refuse "no command is given; name one, as 'crosstie doctor'"

for name in $known; do
    eval "file=\${${name}_FILE-}"
    [ -n "$file" ] || continue
    eval "given=\${$name-}"
    [ -z "$given" ] || refuse "both $name and ${name}_FILE are set; leave one of them out"
    [ -e "$file" ] || refuse "${name}_FILE: there is no file $file; mount the secret there"
    [ -d "$file" ] && refuse "${name}_FILE: $file is a folder (an engine makes one where the source of a mount is missing); put the secret's file in its place"
    [ -r "$file" ] || refuse "${name}_FILE: user $(id -u) may not read $file; let group $(id -g) read it, or chown it to user $(id -u)"
    # The shell drops line ends at the end: editors and `echo` write one.
    value=$(cat "$file")
    [ -n "$value" ] || refuse "${name}_FILE: $file is empty; write the secret into it"
    case $value in
        *"
"*) refuse "${name}_FILE: $file has more than one line; a secret is one line" ;;
    esac
    export "$name=$value"
    unset "${name}_FILE"
done
unset value given

# A misspelt name would otherwise be a service that starts without its secret. Programs read some files themselves (AWS_CONFIG_FILE,
# certificates), so this only tells.
left=$(env | sed -n 's|^\([A-Za-z0-9_]*_FILE\)=/run/secrets/.*|\1|p')
for name in $left; do
    printf 'entrypoint: %s is left as it is: %s is none of the secrets known here\n' "$name" "${name%_FILE}" >&2
done

exec "$@"
