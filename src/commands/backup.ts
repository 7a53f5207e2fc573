import {Flags} from '@oclif/core';
import {BaseCommand} from '../base-command.ts';
import {pingFlag, retentionFlags, retentionOf} from '../flags.ts';
import {compressionNames} from '../lib/config.ts';
import {BackupError} from '../lib/errors.ts';
import {type BackupResult, backup, backupSteps} from '../lib/operations/backup.ts';
import {isPruned, pruneError} from '../lib/operations/prune.ts';
import {backupSummary} from '../ui/summary.ts';

export default class Backup extends BaseCommand {
  static override summary = 'Back up DATABASE_URL, encrypted, to R2 (or another store).';
  static override description =
    'Streams pg_dump through compression and encryption into the store in one pass, without a temporary file, and publishes ' +
    'a manifest last. When anything fails, nothing is stored and nothing is pruned.\n\n' +
    'Exit codes: 0 done, 2 settings, 3 PostgreSQL, 4 storage, 130/143 interrupted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> --label pre-migration --hold',
    '<%= config.bin %> <%= command.id %> --compression zstd --exclude-table-data audit_log',
    '<%= config.bin %> <%= command.id %> --json',
  ];
  static override flags = {
    label: Flags.string({description: 'Why it was taken: scheduled, manual, pre-migration, … [default: manual]'}),
    hold: Flags.boolean({description: 'Never prune this backup.'}),
    compression: Flags.string({
      description: 'gzip opens everywhere; zstd is faster. [default: LOMA_BACKUP_COMPRESSION, or gzip]',
      options: [...compressionNames],
    }),
    'exclude-table-data': Flags.string({
      description:
        'Leave out the rows (not the definition) of tables that match this pattern. Can be given several times. Such a backup is no full one: ' +
        'what restores it warns of that.',
      multiple: true,
      multipleNonGreedy: true,
      helpValue: 'PATTERN',
    }),
    'no-prune': Flags.boolean({description: 'Leave old backups alone.'}),
    ...retentionFlags,
    ping: pingFlag,
  };

  async run(): Promise<BackupResult> {
    const {flags} = await this.parse(Backup);
    const {pingUrl, ...settings} = this.settings(['database', 'store', 'keys', 'compression', 'pingUrl'], {
      LOMA_BACKUP_COMPRESSION: flags.compression,
      LOMA_BACKUP_PING_URL: flags.ping,
    });
    const label = labelOf(flags.label);
    const result = await this.withHeartbeat(
      pingUrl,
      backupSummary,
      ({pruned, isSuspicious}) => isPruned(pruned) && !isSuspicious,
      () =>
        this.observe(backupSteps, (runtime) =>
          backup(
            {
              ...settings,
              label,
              hold: flags.hold === true,
              excludeTableData: flags['exclude-table-data'] ?? [],
              retention: retentionOf(flags),
              prune: flags['no-prune'] !== true,
            },
            runtime,
          ),
        ),
    );
    this.report(backupSummary(result));
    if (!isPruned(result.pruned)) {
      // The backup is complete: its key must not be lost with the error.
      const error = pruneError(result.pruned);
      this.warning(`${error.message}: ${error.reason}`);
      this.finishWith(result, error.exitCode);
    }
    return result;
  }
}

function labelOf(label = 'manual'): string {
  if (/^[a-z0-9][a-z0-9._-]{0,39}$/i.test(label)) return label;
  throw new BackupError('--label must be 1 to 40 letters, digits, dots, underscores and hyphens', {
    code: 'USAGE',
    kind: 'configuration',
    reason: `it is ${JSON.stringify(label)}; labels are stored unencrypted, so they must not hold PHI`,
    hint: 'Use a word such as scheduled, manual or pre-migration.',
  });
}
