#!/bin/sh
# Checks a bundle without trivy-ferry: who signed it, and that every file in it
# is what was signed. Needs tar, sha256sum, base64, sed, grep, cut and openssl 3.
#
#   verify-with-openssl.sh BUNDLE PUBLIC-KEY
#
# The fingerprint of the key has to be compared over another channel, as ever.
set -eu
bundle=$(realpath "$1")
key=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# 1. The envelope: one line of JSON with payloadType, payload and signatures.
tar xOf "$bundle" manifest.dsse.json >envelope
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$2"; }
type=$(field payloadType envelope)
test "$type" = application/vnd.trivy-ferry.bundle.v1+json
field payload envelope | base64 -d >payload.json

# 2. What is signed is DSSE's encoding of type and payload, not the payload alone.
{
    printf 'DSSEv1 %s %s %s ' "${#type}" "$type" "$(wc -c <payload.json)"
    cat payload.json
} >signed

# 3. One good signature by this key is enough. openssl wants regular files.
good=no
grep -o '"sig":"[^"]*"' envelope | cut -d '"' -f 4 >signatures
while read -r line; do
    echo "$line" | base64 -d >signature
    if openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in signed -sigfile signature >/dev/null 2>&1; then
        good=yes
    fi
done <signatures
if [ $good = no ]; then
    echo "NOT signed by $key" >&2
    exit 1
fi
echo "signature good: $(field created payload.json), stream $(field stream payload.json)"

# 4. The signed payload names the digest of SHA256SUMS, and SHA256SUMS that of every file.
mkdir files
tar xf "$bundle" -C files
cd files
sums=$(sha256sum <SHA256SUMS)
grep -q "\"path\":\"SHA256SUMS\",\"size\":[0-9]*,\"digest\":\"sha256:${sums%% *}\"" ../payload.json || {
    echo "SHA256SUMS is not the one that was signed" >&2
    exit 1
}
sha256sum --strict --quiet -c SHA256SUMS

# 5. Nothing stands behind the end, and nothing is cut off.
length=$(sed -n 's/.*"length":\([0-9]*\).*/\1/p' ../payload.json)
if [ "$(wc -c <"$bundle")" -ne "$length" ]; then
    echo "the file has another length than the signed $length bytes" >&2
    exit 1
fi

# 6. Nothing else is in there.
{
    echo ./SHA256SUMS
    echo ./manifest.dsse.json
    sed 's#^[0-9a-f]*  #./#' SHA256SUMS
} | sort >../listed
find . ! -type d | sort >../found
cmp ../listed ../found
echo "files good: $(wc -l <SHA256SUMS), as signed"
