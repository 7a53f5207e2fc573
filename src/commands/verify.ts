import {type FileHandle, open, unlink} from 'node:fs/promises';
import {Args, Flags} from '@oclif/core';
import {BaseCommand} from '../base-command.ts';
import {choiceOf, pingFlag, searchPathFlag} from '../flags.ts';
import {BackupError, codeOf, messageOf} from '../lib/errors.ts';
import {type VerifyResult, type VerifySettings, verify, verifySteps} from '../lib/operations/verify.ts';
import {formatAge} from '../ui/format.ts';
import {reportHtml} from '../ui/report-html.ts';
import {verifySummary} from '../ui/summary.ts';

export default class Verify extends BaseCommand {
  static override summary =
    'Prove that a backup can be restored: open it, restore it into a scratch database, compare every digest.';
  static override description =
    'The scratch database is made on the server of TEST_DATABASE_URL (or --target) and dropped afterwards; where the role may not ' +
    'make one, the named database is used if it is empty. The result is stored beside the backup, for `list` and `status`.\n\n' +
    'Exit codes: 0 nothing failed, 2 settings, 6 a step failed, 7 the report file exists, 130/143 interrupted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> --scratch local --report verification.html',
    '<%= config.bin %> <%= command.id %> --with-backup',
  ];
  static override args = {
    key: Args.string({description: 'The backup key, or the timestamp in it. [default: the newest complete backup]'}),
  };
  static override flags = {
    latest: Flags.boolean({
      description:
        'The newest complete backup: what is verified when no KEY is given. Those of the label pre-restore are passed over.',
    }),
    target: Flags.string({
      description: 'A server where a scratch database may be made. [default: TEST_DATABASE_URL]',
      helpValue: 'URL',
      exclusive: ['scratch'],
    }),
    'with-backup': Flags.boolean({description: 'Take a backup first, and verify that one.'}),
    scratch: Flags.string({
      description: 'local: restore into a throw-away PostgreSQL started from the server programs on this machine.',
      options: ['local'],
    }),
    managed: Flags.boolean({
      description:
        'Leave out what a managed server takes from its superuser only, as restore --managed does; what is left out is not proved.',
    }),
    'search-path': searchPathFlag,
    report: Flags.string({
      description: 'Write a report to be filed, into a new file: one self-contained HTML page.',
      helpValue: 'FILE',
    }),
    ping: pingFlag,
  };

  async run(): Promise<VerifyResult> {
    const {args, flags} = await this.parse(Verify);
    const {optionalTestDatabase, pingUrl, ...settings} = this.settings(
      ['store', 'keys', 'optionalDatabase', 'optionalTestDatabase', 'compression', 'pingUrl'],
      {TEST_DATABASE_URL: flags.target, LOMA_BACKUP_PING_URL: flags.ping},
    );
    const scratch: VerifySettings['scratch'] =
      flags.scratch === 'local'
        ? {on: 'this machine'}
        : optionalTestDatabase
          ? {on: 'server', connection: optionalTestDatabase}
          : {on: 'nothing'};
    const choice = choiceOf(args.key, flags.latest === true || args.key === undefined, undefined);
    const report = flags.report === undefined ? undefined : await ReportFile.create(flags.report);
    const result = await this.withHeartbeat(
      pingUrl,
      verifySummary,
      (outcome) => outcome.isProved,
      () =>
        this.observe(verifySteps, (runtime) =>
          verify(
            {
              ...settings,
              choice,
              scratch,
              withBackup: flags['with-backup'] === true,
              managed: flags.managed === true,
              searchPath: flags['search-path'],
              formatAge,
            },
            runtime,
          ),
        ),
    ).catch(async (error: unknown) => {
      await report?.discard();
      throw error;
    });
    await report?.write(reportHtml(result));
    this.report(verifySummary(result));
    if (result.failed > 0) this.finishWith(result, 6);
    return result;
  }
}

/** A new file, made before the work: a report that cannot be written is said at once, and none is overwritten. */
class ReportFile {
  readonly #name: string;
  readonly #handle: FileHandle;

  private constructor(name: string, handle: FileHandle) {
    this.#name = name;
    this.#handle = handle;
  }

  static async create(name: string): Promise<ReportFile> {
    try {
      return new ReportFile(name, await open(name, 'wx', 0o600));
    } catch (error) {
      if (codeOf(error) === 'EEXIST') throw reportExists(name);
      throw reportFailed(error);
    }
  }

  async write(html: string): Promise<void> {
    try {
      await this.#handle.writeFile(html);
      await this.#handle.sync();
      await this.#handle.close();
    } catch (error) {
      await this.discard();
      throw reportFailed(error);
    }
  }

  async discard(): Promise<void> {
    await this.#handle.close().catch(() => undefined);
    await unlink(this.#name).catch(() => undefined);
  }
}

function reportExists(name: string): BackupError {
  return new BackupError('Refused: the report file exists', {
    code: 'REFUSED',
    kind: 'refused',
    reason: name,
    hint: 'Choose another name, or move that file away: a report is evidence.',
  });
}

function reportFailed(error: unknown): BackupError {
  return new BackupError('The report could not be written', {
    code: 'OUTPUT_FAILED',
    kind: 'unexpected',
    reason: messageOf(error),
    hint: 'Is its directory there, and may this user write in it?',
  });
}
