import {BaseCommand} from '../../base-command.ts';
import {type KeysInUse, showKeys} from '../../lib/operations/keys-show.ts';
import {keysInUseText} from '../../ui/keys-summary.ts';
import {tableWidth} from '../../ui/table.ts';

export default class KeysShow extends BaseCommand {
  static override summary = 'Show the fingerprints of the keys in use, and how many backups each one opens.';
  static override description =
    'No key is printed. Backups of the older form do not name their key, and are counted apart.\n\n' +
    'Exit codes: 0 done, 2 settings, 4 storage.';
  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> --json'];

  async run(): Promise<KeysInUse> {
    await this.parse(KeysShow);
    const result = await showKeys(this.settings(['store', 'optionalKeys']), this.runtime());
    this.report(keysInUseText(result, tableWidth()));
    return result;
  }
}
