/**
 * The single executable's own part: oclif finds commands, package.json and oclif.manifest.json in the bundle, where it
 * finds them in files otherwise. All else is src/main.ts, as everywhere.
 */
import {type Command, type Interfaces, Plugin} from '@oclif/core';
import manifest from '../../oclif.manifest.json' with {type: 'json'};
import packageJson from '../../package.json' with {type: 'json'};
import {main} from '../../src/main.ts';

/** A command's module by the command's id; a module is evaluated when its command runs. */
export type BundledCommands = Readonly<Record<string, () => Promise<{default: Command.Class}>>>;

// Nothing is read there: the plugin brings all that oclif looks for in a package's folder.
const root = '/';
// Types of JSON are wider than what oclif wants, and its manifest is oclif's own work.
const pjson = packageJson as unknown as Interfaces.PJSON;
const {commands: cached, version} = manifest as unknown as Interfaces.Manifest;

class BundledPlugin extends Plugin {
  readonly #commands: BundledCommands;

  constructor(commands: BundledCommands) {
    super({root, pjson: {...pjson, oclif: {...pjson.oclif, commands: undefined}}, isRoot: true, ignoreManifest: true});
    this.#commands = commands;
  }

  override async load(): Promise<void> {
    await super.load();
    this.manifest = {commands: cached, version};
    this.commandIDs = Object.keys(cached);
    this.commands = Object.entries(cached).map(([id, command]) => ({
      ...command,
      pluginType: this.type,
      load: () => this.findCommand(id),
    }));
  }

  override async findCommand(id: string): Promise<Command.Class> {
    const load = this.#commands[id];
    if (!load) throw new Error(`command ${id} not found`);
    const command = (await load()).default;
    command.id = id;
    command.plugin = this;
    return command;
  }
}

export async function runBundle(commands: BundledCommands): Promise<void> {
  const plugin = new BundledPlugin(commands);
  await plugin.load();
  await main({root, pjson, plugins: new Map([[plugin.name, plugin]])});
}
