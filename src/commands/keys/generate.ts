import {BaseCommand} from '../../base-command.ts';
import {type GeneratedKey, generateKey} from '../../lib/operations/keys-generate.ts';
import {generatedKeyText} from '../../ui/keys-summary.ts';

export default class KeysGenerate extends BaseCommand {
  static override summary = 'Make a new encryption key, and print it with its fingerprint and what to do with it.';
  static override description =
    'The key is printed on stdout and kept nowhere. With --json: {"key", "fingerprint"}.\n\nExit codes: 0 done.';
  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> --json'];

  async run(): Promise<GeneratedKey> {
    await this.parse(KeysGenerate);
    const generated = generateKey();
    // Not by `report`: when stdout takes nothing, the key must not go to stderr, which logs keep.
    this.log(generatedKeyText(generated));
    return generated;
  }
}
