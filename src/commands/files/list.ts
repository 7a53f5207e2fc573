import {Args, Flags} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {type ListedFile, listFiles} from '../../lib/operations/files-list.ts';
import {filesTable} from '../../ui/files-summary.ts';
import {tableWidth} from '../../ui/table.ts';

export default class FilesList extends BaseCommand {
  static override summary = 'List the files in the files bucket.';
  static override description =
    'Hidden names (--hash-names) are shown when PHI_ENCRYPTION_KEY is set.\n\nExit codes: 0 done, 2 settings, 4 storage.';
  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> uploads/2024/ --long',
  ];
  static override args = {
    prefix: Args.string({description: 'Only files whose names begin so: uploads/2024/. [default: all]'}),
  };
  static override flags = {
    long: Flags.boolean({description: 'Ask every object for its original size, time, type and key.'}),
  };

  async run(): Promise<{files: ListedFile[]}> {
    const {args, flags} = await this.parse(FilesList);
    const isLong = flags.long === true;
    const settings = this.settings(['store', 'optionalKeys']);
    const files = await listFiles({...settings, prefix: args.prefix, long: isLong}, this.runtime());
    this.report(filesTable(files, isLong, tableWidth()));
    return {files};
  }
}
