import {Args, Flags} from '@oclif/core';
import {BaseCommand} from '../base-command.ts';
import {choiceOf, searchPathFlag, selectionOf} from '../flags.ts';
import type {Backup} from '../lib/catalog/backups.ts';
import {defaultRetention} from '../lib/catalog/retention.ts';
import {BackupError} from '../lib/errors.ts';
import type {BackupChoice} from '../lib/operations/catalog.ts';
import {type ExtractResult, extract, extractSteps} from '../lib/operations/extract.ts';
import {list} from '../lib/operations/list.ts';
import {type Confirm, type RestoreResult, restore, restoreSteps} from '../lib/operations/restore.ts';
import {restoreSwap, type SwapResult, swapSteps} from '../lib/operations/restore-swap.ts';
import type {SelectionRequest} from '../lib/operations/selection.ts';
import {confirmOverwrite} from '../ui/confirm.ts';
import {extractSummary, leftOutLines, listTable, restoreSummary} from '../ui/summary.ts';
import {swapSummary} from '../ui/swap-summary.ts';
import {tableWidth} from '../ui/table.ts';

export default class Restore extends BaseCommand {
  static override summary = 'Restore a backup into a database, or write its plain SQL.';
  static override description =
    'Everything happens in one transaction, which is committed when the last byte was authenticated and every table holds the ' +
    'rows that it should: a restore that fails leaves the target as it was. A target that is not empty must be confirmed by ' +
    'typing its name, or with --yes.\n\n' +
    'With --swap the target is not overwritten: the backup goes into a new database beside it, with its owner, encoding, locale, ' +
    'settings and grants, and when that is whole both are renamed in one transaction: CLINIC becomes CLINIC_before_<time>, the new one ' +
    'CLINIC. Sessions on the old one are ended then. How to undo it is printed.\n\n' +
    'Exit codes: 0 done, 2 settings, 3 PostgreSQL, 4 storage, 5 decryption or integrity, 7 refused, 130/143 interrupted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %> --latest --target postgresql://user:password@host:5432/new_database',
    '<%= config.bin %> <%= command.id %> database-backups/2025-11-04T15-30-00-000Z/backup-2025-11-04T15-30-00-000Z.sql.gz.encrypted',
    '<%= config.bin %> <%= command.id %> --at 2025-11-04T12:00 --yes',
    '<%= config.bin %> <%= command.id %> --latest --swap',
    '<%= config.bin %> <%= command.id %> --latest --table public.invoices --table public.invoice_lines',
    '<%= config.bin %> <%= command.id %> --latest --schema billing --output billing.sql',
    '<%= config.bin %> <%= command.id %> --latest --managed',
    '<%= config.bin %> <%= command.id %> --latest --output - | less',
  ];
  static override args = {
    key: Args.string({description: 'The backup key as `backup` and `list` print it, or the timestamp in it.'}),
  };
  static override flags = {
    latest: Flags.boolean({
      description: 'The newest backup that is complete; those of the label pre-restore are passed over.',
    }),
    at: Flags.string({
      description:
        'The newest complete backup that was started at this time or before (those of the label pre-restore are passed over): ' +
        '2025-11-04T15:30, or as `list` shows it. Without seconds, the whole minute counts; without a zone (Z, UTC, +01:00), it is local time.',
      helpValue: 'TIME',
    }),
    target: Flags.string({
      description: 'The database to restore into. [default: DATABASE_URL]',
      helpValue: 'URL',
      exclusive: ['output'],
    }),
    table: Flags.string({
      description:
        'Restore only this table (or view, or sequence), with its rows, indexes, constraints and the like; a partitioned table with its ' +
        'partitions. Repeatable. Nothing else in the target is touched.',
      helpValue: 'SCHEMA.TABLE',
      multiple: true,
      multipleNonGreedy: true,
    }),
    schema: Flags.string({
      description: 'Restore only what is in this schema. Repeatable.',
      helpValue: 'NAME',
      multiple: true,
      multipleNonGreedy: true,
    }),
    output: Flags.string({
      description: 'Write the plain SQL to this file (- for stdout) instead of restoring it. It is PHI, unencrypted.',
      helpValue: 'FILE',
    }),
    'recovery-key': Flags.string({
      description:
        'Open the backup with the recovery key (RSA private key, PEM), when PHI_ENCRYPTION_KEY is lost. Its passphrase is asked for, ' +
        'or LOMA_BACKUP_RECOVERY_PASSPHRASE.',
      helpValue: 'FILE',
    }),
    managed: Flags.boolean({
      description:
        'Leave out what a managed server (RDS, Cloud SQL, Render and the like) takes from its superuser only: event triggers, ' +
        'publications, subscriptions, comments on extensions, such settings of functions. What was left out is listed.',
      exclusive: ['output'],
    }),
    'search-path': {...searchPathFlag, exclusive: ['output']},
    swap: Flags.boolean({
      description:
        'Restore into a new database beside the target, then rename both. The role needs CREATEDB and the rights of the owner. ' +
        'No safety backup is taken: the old database stays, whole.',
      exclusive: ['output', 'table', 'schema'],
    }),
    yes: Flags.boolean({
      char: 'y',
      description: 'Overwrite a target that is not empty without asking; restore although something speaks against it.',
    }),
    'no-safety-backup': Flags.boolean({
      description: 'Do not back up a target that is not empty (label pre-restore) before it is overwritten.',
    }),
    list: Flags.boolean({
      description: 'List the backups, as `list` does.',
      exclusive: ['latest', 'at', 'target', 'output', 'table', 'schema', 'swap'],
    }),
  };

  async run(): Promise<RestoreResult | SwapResult | ExtractResult | {backups: Backup[]}> {
    const {args, flags} = await this.parse(Restore);
    if (flags.list) return this.#list();
    const choice = choiceOf(args.key, flags.latest === true, flags.at);
    const selection = selectionOf(flags.table, flags.schema);
    await this.readSecretFile(flags['recovery-key']);
    if (flags.output !== undefined) return this.#extract(choice, flags.output, flags['recovery-key'], selection);
    return this.#restore(choice, flags, selection);
  }

  async #list(): Promise<{backups: Backup[]}> {
    const backups = await list(this.settings(['store', 'optionalKeys']), this.runtime());
    this.report(listTable(backups, tableWidth()));
    return {backups};
  }

  async #restore(
    choice: BackupChoice,
    flags: {
      target?: string | undefined;
      swap?: boolean;
      yes?: boolean;
      managed?: boolean;
      'search-path'?: string | undefined;
      'no-safety-backup'?: boolean;
      'recovery-key'?: string | undefined;
    },
    selection: SelectionRequest | undefined,
  ): Promise<RestoreResult | SwapResult> {
    const {database, compression, readingKeys, store} = this.settings(
      ['database', 'store', 'compression', 'readingKeys'],
      {DATABASE_URL: flags.target},
      {LOMA_BACKUP_RECOVERY_PRIVATE_KEY: flags['recovery-key']},
    );
    const recovery = await this.recoveryKey(readingKeys);
    const yes = flags.yes === true;
    const confirm: Confirm = async (facts, backup, overwritten) => {
      if (yes) return true;
      await this.idle();
      const terminal = {input: process.stdin, output: process.stderr};
      return confirmOverwrite(facts, backup, {...overwritten, isSwap: flags.swap === true}, terminal, this.signal);
    };
    const settings = {
      store,
      keys: readingKeys.keys,
      recovery,
      choice,
      target: database,
      allowUnrestricted: yes,
      allowUnfit: yes,
      managed: flags.managed === true,
      searchPath: flags['search-path'],
    };
    if (flags.swap) {
      const result = await this.observe(swapSteps, (runtime) => restoreSwap(settings, confirm, runtime));
      this.report(swapSummary(result, database));
      return result;
    }
    const safetyBackup = flags['no-safety-backup'] ? undefined : {compression, retention: defaultRetention};
    const result = await this.observe(restoreSteps, (runtime) =>
      restore({...settings, selection, safetyBackup}, confirm, runtime),
    );
    this.report(restoreSummary(result));
    return result;
  }

  async #extract(
    choice: BackupChoice,
    output: string,
    recoveryKey: string | undefined,
    selection: SelectionRequest | undefined,
  ): Promise<ExtractResult> {
    const toStdout = output === '-';
    if (toStdout && this.jsonEnabled()) {
      throw new BackupError('--json and --output - both want stdout', {
        code: 'USAGE',
        kind: 'configuration',
        hint: 'Write to a file, or leave out --json.',
      });
    }
    const {store, readingKeys} = this.settings(
      ['store', 'readingKeys'],
      {},
      {LOMA_BACKUP_RECOVERY_PRIVATE_KEY: recoveryKey},
    );
    const {keys} = readingKeys;
    const recovery = await this.recoveryKey(readingKeys);
    this.warning('the output is PHI, unencrypted: keep it on an encrypted disk, and delete it when it has served.');
    const result = await this.observe(extractSteps, (runtime) =>
      extract({store, keys, recovery, choice, selection, output: toStdout ? process.stdout : output}, runtime),
    );
    if (toStdout)
      process.stderr.write(
        leftOutLines(result.leftOut)
          .map((line) => `${line}\n`)
          .join(''),
      );
    else this.report(extractSummary(result));
    return result;
  }
}
