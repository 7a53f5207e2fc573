import {Args} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {concurrencyFlag} from '../../flags.ts';
import {type FilesVerifyResult, filesVerifySteps, verifyFiles} from '../../lib/operations/files-verify.ts';
import {filesVerifySummary} from '../../ui/files-summary.ts';

export default class FilesVerify extends BaseCommand {
  static override summary = 'Open every file in the files bucket and check its digest.';
  static override description =
    'The result is stored in the bucket, sealed, under loma-backup/file-verifications/.\n\n' +
    'Exit codes: 0 nothing wrong, 2 settings, 4 storage, 6 a file is not what was stored, or there is none, ' +
    '130/143 interrupted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> uploads/2024/ --json',
  ];
  static override args = {
    prefix: Args.string({description: 'Only files whose names begin so: uploads/2024/. [default: all]'}),
  };
  static override flags = {concurrency: concurrencyFlag};

  async run(): Promise<FilesVerifyResult> {
    const {args, flags} = await this.parse(FilesVerify);
    const settings = this.settings(['store', 'keys']);
    const result = await this.observe(filesVerifySteps, (runtime) =>
      verifyFiles({...settings, prefix: args.prefix, concurrency: flags.concurrency ?? 4}, runtime),
    );
    this.report(filesVerifySummary(result));
    if (result.failed > 0) this.finishWith(result, 6);
    return result;
  }
}
