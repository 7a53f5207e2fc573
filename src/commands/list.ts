import {BaseCommand} from '../base-command.ts';
import type {Backup} from '../lib/catalog/backups.ts';
import {list} from '../lib/operations/list.ts';
import {listTable} from '../ui/summary.ts';
import {tableWidth} from '../ui/table.ts';

export default class List extends BaseCommand {
  static override summary = 'List the backups in the store, newest first.';
  static override description =
    'Backups of the older procedure are marked legacy; those that miss a part, or are not what was written, are marked too. ' +
    'With PHI_ENCRYPTION_KEY set, the seal of every manifest is checked.\n\nExit codes: 0 done, 2 settings, 4 storage.';
  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> --json'];

  async run(): Promise<{backups: Backup[]}> {
    await this.parse(List);
    const backups = await list(this.settings(['store', 'optionalKeys']), this.runtime());
    this.report(listTable(backups, tableWidth()));
    return {backups};
  }
}
