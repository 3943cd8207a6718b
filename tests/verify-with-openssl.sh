#!/bin/sh
# Verifies the signature of a bundle and the digest of every file in it, without
# trivy-ferry. Needs tar, GNU coreutils, findutils, diffutils, sed, grep and openssl 3.
#
#   verify-with-openssl.sh BUNDLE PUBLIC-KEY
#
# Compare the fingerprint of the key over another channel first.
set -eu
bundle=$(realpath "$1")
key=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# 1. The envelope: one line of JSON with `payloadType`, `payload` and `signatures`.
tar xOf "$bundle" manifest.dsse.json >envelope
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$2"; }
type=$(field payloadType envelope)
test "$type" = application/vnd.trivy-ferry.bundle.v1+json
field payload envelope | base64 -d >payload.json

# 2. The signature covers DSSE's encoding of type and payload, not the payload alone.
{
    printf 'DSSEv1 %s %s %s ' "${#type}" "$type" "$(wc -c <payload.json)"
    cat payload.json
} >signed

# 3. One good signature by this key is enough. openssl requires regular files.
good=no
grep -o '"sig":"[^"]*"' envelope | cut -d '"' -f 4 >signatures
while read -r line; do
    echo "$line" | base64 -d >signature
    if openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in signed -sigfile signature >/dev/null 2>&1; then
        good=yes
    fi
done <signatures
if [ $good = no ]; then
    echo "$bundle is NOT signed by $key. Compare the fingerprint of the key, or copy the bundle again." >&2
    exit 1
fi
echo "signature good: $(field created payload.json), stream $(field stream payload.json)"

# 4. The signed payload lists the digest of `SHA256SUMS`. `SHA256SUMS` lists the digest of every file.
mkdir files
tar xf "$bundle" -C files
cd files
sums=$(sha256sum <SHA256SUMS)
grep -q "\"path\":\"SHA256SUMS\",\"size\":[0-9]*,\"digest\":\"sha256:${sums%% *}\"" ../payload.json || {
    echo "SHA256SUMS in $bundle does not match the signed digest. Copy the bundle again." >&2
    exit 1
}
sha256sum --strict --quiet -c SHA256SUMS

# 5. The file has the signed length: it has no additional data and is not truncated.
length=$(sed -n 's/.*"length":\([0-9]*\).*/\1/p' ../payload.json)
if [ "$(wc -c <"$bundle")" -ne "$length" ]; then
    echo "$bundle does not have the signed length of $length bytes. Copy the bundle again." >&2
    exit 1
fi

# 6. The bundle contains no other files.
{
    echo ./SHA256SUMS
    echo ./manifest.dsse.json
    sed 's#^[0-9a-f]*  #./#' SHA256SUMS
} | sort >../listed
find . ! -type d | sort >../found
cmp ../listed ../found
echo "files good: $(wc -l <SHA256SUMS), as signed"
