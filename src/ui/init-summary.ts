/** The results of the `init` commands as text for people: what was done, what differs, what to do next. */
import type {InitResult} from '../lib/operations/init.ts';
import type {FileState} from '../lib/scaffold/place-files.ts';
import {credentials, credentialsDirectory, settingsFile} from '../lib/scaffold/systemd-units.ts';
import {bold, printable} from './format.ts';

const done: Readonly<Record<FileState, string>> = {
  created: 'written',
  unchanged: 'is there already, the same',
  replaced: 'replaced',
  kept: 'KEPT: it differs; --overwrite replaces it',
};
const planned: Readonly<Record<FileState, string>> = {
  ...done,
  created: 'would be written',
  replaced: 'would be replaced',
};

function filesText({directory, dryRun, files}: InitResult): string[] {
  const words = dryRun ? planned : done;
  return [
    bold(printable(directory)),
    ...files.map(({path, state}) => `  ${path}: ${words[state]}`),
    ...files.flatMap(({difference}) =>
      difference === undefined ? [] : ['', ...difference.trimEnd().split('\n').map(printable)],
    ),
  ];
}

const githubSecrets = [
  'DATABASE_URL',
  'CLOUDFLARE_R2_ACCOUNT_ID',
  'CLOUDFLARE_R2_ACCESS_KEY_ID',
  'CLOUDFLARE_R2_SECRET_ACCESS_KEY',
  'PHI_ENCRYPTION_KEY',
];

export function initGithubText(result: InitResult): string {
  return [
    ...filesText(result),
    '',
    'Next:',
    '  1. Set the secrets (each command asks for the value; it does not show in the history of the shell):',
    ...githubSecrets.map((name) => `     gh secret set ${name}`),
    '  2. The names of the buckets, if they are not loma-db-backups and loma-phi-files:',
    '     gh variable set CLOUDFLARE_R2_BUCKET_BACKUPS --body NAME',
    '     gh variable set CLOUDFLARE_R2_BUCKET_FILES --body NAME',
    '  3. Commit the two files, push them to the default branch, and try both:',
    '     gh workflow run database-backup.yml',
    '     gh workflow run backup-verification.yml',
    'Keep the repository private: an issue about a failure names the host of the database. Whoever may change a workflow can',
    'read the secrets: have changes reviewed. PHI_ENCRYPTION_KEY belongs into the safe too: GitHub never shows it again.',
  ].join('\n');
}

export function initSystemdText(result: InitResult): string {
  return [
    ...filesText(result),
    '',
    'Next, as root on the machine that takes the backups:',
    `  1. Put each secret into a file of its own in ${credentialsDirectory}, readable by root only:`,
    `     install -d -m 0700 ${credentialsDirectory}`,
    ...Object.entries(credentials).map(
      ([name, file]) => `     install -m 0600 /dev/stdin ${credentialsDirectory}/${file}    # ${name}, then Ctrl-D`,
    ),
    `  2. What is no secret into ${settingsFile}: CLOUDFLARE_R2_ACCOUNT_ID=…`,
    '     (Backups in a directory: LOMA_BACKUP_STORE=file:///…, and what the service says of them.)',
    '  3. Copy the two units to /etc/systemd/system, then:',
    '     systemctl daemon-reload',
    '     systemctl start loma-backup.service       # a first backup, now',
    '     journalctl --unit loma-backup.service     # what it said',
    '     systemctl enable --now loma-backup.timer  # every night',
    'Let somebody notice when it stops: LOMA_BACKUP_PING_URL, or `loma-backup status` on another machine.',
  ].join('\n');
}
