import {Args, Flags} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {concurrencyFlag} from '../../flags.ts';
import {type MigrateResult, migrateFiles, migrateSteps} from '../../lib/operations/files-migrate.ts';
import {migrateSummary} from '../../ui/files-summary.ts';

export default class FilesMigrate extends BaseCommand {
  static override summary = 'Encrypt a directory of uploads into the files bucket.';
  static override description =
    'Every file becomes the object migrated/<dir>/<path>.encrypted, <dir> being the name of DIR. Files that are there with the ' +
    'same content are skipped. Symbolic links are not followed. No local file is touched without --delete.\n\n' +
    'A key shows the path of its file to whoever may list the bucket: --hash-names hides it (docs/FILES.md).\n\n' +
    'Exit codes: 0 done, 1 a file failed or is in conflict, 2 settings, 4 storage, 5 names are hidden with another key, ' +
    '130/143 interrupted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %> --dry-run',
    '<%= config.bin %> <%= command.id %> public/uploads --delete',
    `<%= config.bin %> <%= command.id %> --include '*.pdf' --exclude 'tmp/**'`,
  ];
  static override args = {
    directory: Args.string({name: 'DIR', description: 'The directory of the uploads. [default: uploads]'}),
  };
  static override flags = {
    'dry-run': Flags.boolean({description: 'Say what would be done, and change nothing anywhere.'}),
    delete: Flags.boolean({
      description: 'Delete each local file after its object was read back, opened and compared byte by byte.',
    }),
    overwrite: Flags.boolean({description: 'Replace objects that hold other content. Without it they are conflicts.'}),
    'hash-names': Flags.boolean({description: 'Hide paths: keys hold a keyed hash of them.'}),
    concurrency: concurrencyFlag,
    include: Flags.string({
      description: 'Only files that match; may be given more than once. Without / it is about the name alone.',
      helpValue: 'GLOB',
      multiple: true,
      multipleNonGreedy: true,
    }),
    exclude: Flags.string({
      description: 'Not the files that match.',
      helpValue: 'GLOB',
      multiple: true,
      multipleNonGreedy: true,
    }),
  };

  async run(): Promise<MigrateResult> {
    const {args, flags} = await this.parse(FilesMigrate);
    const settings = this.settings(['store', 'keys']);
    const dryRun = flags['dry-run'] === true;
    const result = await this.observe(migrateSteps({dryRun}), (runtime) =>
      migrateFiles(
        {
          ...settings,
          directory: args.directory ?? 'uploads',
          dryRun,
          deleteLocal: flags.delete === true,
          overwrite: flags.overwrite === true,
          hideNames: flags['hash-names'] === true,
          concurrency: flags.concurrency ?? 4,
          include: flags.include ?? [],
          exclude: flags.exclude ?? [],
        },
        runtime,
      ),
    );
    this.report(migrateSummary(result));
    if (result.failed + result.conflicts > 0) this.finishWith(result, 1);
    return result;
  }
}
