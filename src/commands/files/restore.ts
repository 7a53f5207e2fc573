import {Args, Flags} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {concurrencyFlag} from '../../flags.ts';
import {type FilesRestoreResult, filesRestoreSteps, restoreFiles} from '../../lib/operations/files-restore.ts';
import {filesRestoreSummary} from '../../ui/files-summary.ts';

export default class FilesRestore extends BaseCommand {
  static override summary = 'Bring files back from the files bucket.';
  static override description =
    'A file named uploads/a/b.pdf comes to lie in DIR/uploads/a/b.pdf, with the same bytes and modification time. Nothing is ' +
    'written outside DIR. Files that are there with other content are kept; run it again to continue an interrupted restore.\n\n' +
    'Exit codes: 0 done, 1 a file failed or is in conflict, 2 settings, 4 storage, or no such file, ' +
    '130/143 interrupted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %> --to /srv/app',
    '<%= config.bin %> <%= command.id %> uploads/2024/ --to recovered',
  ];
  static override args = {
    prefix: Args.string({description: 'Only files whose names begin so: uploads/2024/. [default: all]'}),
  };
  static override flags = {
    to: Flags.string({
      description: 'The directory to restore into; made if it is not there.',
      helpValue: 'DIR',
      required: true,
    }),
    overwrite: Flags.boolean({description: 'Replace local files that hold other content.'}),
    concurrency: concurrencyFlag,
  };

  async run(): Promise<FilesRestoreResult> {
    const {args, flags} = await this.parse(FilesRestore);
    const settings = this.settings(['store', 'keys']);
    const choice = {prefix: args.prefix, to: flags.to, overwrite: flags.overwrite === true};
    const result = await this.observe(filesRestoreSteps, (runtime) =>
      restoreFiles({...settings, ...choice, concurrency: flags.concurrency ?? 4}, runtime),
    );
    this.report(filesRestoreSummary(result));
    if (result.failed + result.conflicts > 0) this.finishWith(result, 1);
    return result;
  }
}
