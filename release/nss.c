/* Makes the static program read names from `/etc/hosts` and DNS only.
 *
 * The C library in a static program loads the modules that `/etc/nsswitch.conf` names, with the C library of the host.
 * If that is another version, the program crashes. This runs before `main()`.
 */
#include <nss.h>

__attribute__((constructor)) static void only_files_and_dns(void)
{
    __nss_configure_lookup("hosts", "files dns");
    __nss_configure_lookup("passwd", "files");
    __nss_configure_lookup("group", "files");
}
