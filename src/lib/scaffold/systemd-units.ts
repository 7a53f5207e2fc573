/**
 * A service and a timer for systemd: a backup every night on a machine of one's own. Directives: systemd.exec(5) and
 * systemd.timer(5); `%d` is the directory of the credentials (systemd 250, credentials themselves 247).
 */

/** The credentials that a backup needs, by the setting that each one is for; files in `credentialsDirectory`. */
export const credentials = {
  DATABASE_URL: 'database-url',
  PHI_ENCRYPTION_KEY: 'phi-encryption-key',
  CLOUDFLARE_R2_ACCESS_KEY_ID: 'r2-access-key-id',
  CLOUDFLARE_R2_SECRET_ACCESS_KEY: 'r2-secret-access-key',
} as const;

/** Where an administrator puts them: readable by root only, systemd hands them to the service. */
export const credentialsDirectory = '/etc/loma-backup/credentials';
/** What is no secret: account, buckets, endpoint, compression. */
export const settingsFile = '/etc/loma-backup/settings.env';

/**
 * The units' texts by file name.
 * @param program absolute path of loma-backup on the machine that will run it
 */
export function systemdUnits(program: string): Record<string, string> {
  return {'loma-backup.service': service(program), 'loma-backup.timer': timer};
}

/** systemd reads `%` as the start of a specifier, `$` as a variable, and quotes and backslashes as a shell does. */
function escaped(program: string): string {
  const text = program.replaceAll('%', '%%').replaceAll('$', '$$$$');
  return /^[\w@%+=:,./$-]+$/.test(text) ? text : `"${text.replace(/["\\]/g, '\\$&')}"`;
}

function service(program: string): string {
  const names = Object.entries(credentials);
  return `# An encrypted backup of the database. Written by \`loma-backup init systemd\`.
[Unit]
Description=Encrypted backup of the database (loma-backup)
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=${escaped(program)} backup --label scheduled
TimeoutStartSec=6h

# Secrets: each in a file that root alone can read. LoadCredentialEncrypted= takes what systemd-creds(1) has encrypted.
${names.map(([, file]) => `LoadCredential=${file}:${credentialsDirectory}/${file}`).join('\n')}
${names.map(([name, file]) => `Environment=${name}_FILE=%d/${file}`).join('\n')}
# What is no secret: CLOUDFLARE_R2_ACCOUNT_ID, CLOUDFLARE_R2_BUCKET_BACKUPS, LOMA_BACKUP_COMPRESSION, one NAME=value a line.
EnvironmentFile=-${settingsFile}
# A heartbeat monitor that notices when this stops running (add a credential for it):
#LoadCredential=ping-url:${credentialsDirectory}/ping-url
#Environment=LOMA_BACKUP_PING_URL_FILE=%d/ping-url
# Backups in a directory instead of R2: set LOMA_BACKUP_STORE in the settings; take out the lines of r2-access-key-id and
# r2-secret-access-key above (a credential without its file stops the service); let the service write there; and make a lasting user
# of this name who owns the directory: useradd --system loma-backup; chown loma-backup /srv/loma-backups
#ReadWritePaths=/srv/loma-backups

# A user that exists while it runs, who sees nothing of the machine but programs and libraries.
DynamicUser=yes
User=loma-backup
UMask=0077
# Memory is never written to a core file: it holds rows and the key.
LimitCORE=0
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
# Not MemoryDenyWriteExecute=: Node.js compiles while it runs.
Nice=10
`;
}

const timer = `# When the backup is taken. Written by \`loma-backup init systemd\`.
[Unit]
Description=Encrypted backup of the database, every night (loma-backup)

[Timer]
OnCalendar=*-*-* 02:00:00 UTC
# A machine that was off at that time makes up for it.
Persistent=yes
RandomizedDelaySec=5min

[Install]
WantedBy=timers.target
`;
