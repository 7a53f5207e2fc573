/**
 * Builds dist/loma-backup: this program and the Node.js that runs this script, in one file for this platform. Beside it: its
 * SHA-256, as `sha256sum --check` reads it, a CycloneDX list of what is in it, and the licences of that.
 *
 * Needs `npm run build` before it, for oclif.manifest.json.
 */
import {createHash} from 'node:crypto';
import {createReadStream, globSync} from 'node:fs';
import {mkdtemp, readFile, rm, stat, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {pipeline} from 'node:stream/promises';
import {build} from 'esbuild';
import {execa} from 'execa';
import {v8Flags} from '../bin/v8-flags.js';
import {
  type BundledPackage,
  billOfMaterials,
  bundledPackages,
  bundleOptions,
  licenseTexts,
  root,
} from './shared/bundle.ts';

const output = path.join(root, 'dist/loma-backup');

/** The start of the bundle: which modules are the commands. */
function entry(ids: readonly string[]): string {
  const commands = ids.map((id) => `  '${id}': () => import('./src/commands/${id.replaceAll(':', '/')}.ts'),`);
  return `import {runBundle} from './scripts/binary/main.ts';\nvoid runBundle({\n${commands.join('\n')}\n});\n`;
}

async function bundle(file: string): Promise<BundledPackage[]> {
  const {commands} = JSON.parse(await readFile(path.join(root, 'oclif.manifest.json'), 'utf8'));
  const {metafile} = await build({
    ...bundleOptions,
    stdin: {contents: entry(Object.keys(commands)), resolveDir: root, loader: 'ts'},
    outfile: file,
    format: 'cjs',
    target: `node${process.versions.node}`,
    minify: true,
    // As in bin/run.js; it came with its own Node.js.
    define: {'process.env.OCLIF_DISABLE_ENGINE_WARNING': '"1"'},
  });
  return bundledPackages(metafile);
}

const execArgv = v8Flags(Number.parseInt(process.versions.node, 10));

async function embed(main: string, folder: string): Promise<void> {
  const config = path.join(folder, 'sea.json');
  await writeFile(
    config,
    JSON.stringify({main, output, disableExperimentalSEAWarning: true, useCodeCache: true, execArgv}),
  );
  // A code cache is of use only under the flags that it was made with.
  await execa(process.execPath, [...execArgv, `--build-sea=${config}`]);
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/** The runtime that the packages are embedded in belongs to what is shipped, too. */
async function withRuntime(packages: readonly BundledPackage[]) {
  const {components, ...rest} = await billOfMaterials(packages);
  const {node: version} = process.versions;
  const runtime = {type: 'platform', 'bom-ref': `node@${version}`, name: 'node', version};
  return {...rest, components: [runtime, ...components]};
}

/** Node.js has its licence, and those of its own libraries, beside its folder of programs; or its home page has them. */
async function runtimeLicense(): Promise<string> {
  const cwd = path.dirname(process.execPath);
  // The second one is where the npm package `node` has it.
  const [file] = globSync(['../LICENSE', '../node_modules/node-*/LICENSE'], {cwd});
  const text = file ? await readFile(path.join(cwd, file), 'utf8') : 'https://github.com/nodejs/node/blob/main/LICENSE';
  return `Node.js ${process.versions.node}, and what it holds:\n\n${text}\n`;
}

const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-backup-binary-'));
try {
  const script = path.join(folder, 'loma-backup.cjs');
  const packages = await bundle(script);
  await embed(script, folder);
  await writeFile(`${output}.sha256`, `${await sha256(output)}  loma-backup\n`);
  await writeFile(`${output}.cdx.json`, `${JSON.stringify(await withRuntime(packages), undefined, 2)}\n`);
  await writeFile(`${output}.licenses.txt`, (await licenseTexts(packages)) + (await runtimeLicense()));
} finally {
  await rm(folder, {recursive: true});
}
process.stdout.write(`${output}: ${Math.round((await stat(output)).size / 1e6)} MB\n`);
