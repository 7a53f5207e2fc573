/**
 * Builds dist/loma-backup: this program and the Node.js that runs this script, in one file for this platform. Beside it: its
 * SHA-256, as `sha256sum --check` reads it, and a CycloneDX list of what is in it (npm's own).
 *
 * Needs `npm run build` before it, for oclif.manifest.json.
 */
import {createHash} from 'node:crypto';
import {createReadStream} from 'node:fs';
import {mkdir, mkdtemp, readFile, rm, stat, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {pipeline} from 'node:stream/promises';
import {build} from 'esbuild';
import {execa} from 'execa';

const root = path.resolve(import.meta.dirname, '..');
const output = path.join(root, 'dist/loma-backup');

/** The start of the bundle: which modules are the commands. */
function entry(ids: readonly string[]): string {
  const commands = ids.map((id) => `  '${id}': () => import('./src/commands/${id.replaceAll(':', '/')}.ts'),`);
  return `import {runBundle} from './scripts/binary/main.ts';\nvoid runBundle({\n${commands.join('\n')}\n});\n`;
}

async function bundle(file: string): Promise<void> {
  const {commands} = JSON.parse(await readFile(path.join(root, 'oclif.manifest.json'), 'utf8'));
  await build({
    stdin: {contents: entry(Object.keys(commands)), resolveDir: root, loader: 'ts'},
    outfile: file,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: `node${process.versions.node}`,
    // ES modules can be shaken: the bundle is a third smaller, and starts faster.
    mainFields: ['module', 'main'],
    minify: true,
    // Error classes are told apart by name in the AWS SDK.
    keepNames: true,
    legalComments: 'none',
    logLevel: 'warning',
    // As in bin/run.js; it came with its own Node.js.
    define: {'process.env.OCLIF_DISABLE_ENGINE_WARNING': '"1"'},
  });
}

async function embed(main: string, folder: string): Promise<void> {
  const config = path.join(folder, 'sea.json');
  await writeFile(config, JSON.stringify({main, output, disableExperimentalSEAWarning: true, useCodeCache: true}));
  await execa(process.execPath, [`--build-sea=${config}`]);
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/**
 * Of a copy of package.json and its lock without what only makers need: `npm sbom --omit dev` would also leave out every package
 * that such a one uses, too. The copy's directory is named after the program, since npm takes the name from there.
 */
async function billOfMaterials(parent: string): Promise<string> {
  const cwd = path.join(parent, 'loma-backup');
  await mkdir(cwd);
  const read = async (name: string) => JSON.parse(await readFile(path.join(root, name), 'utf8'));
  const write = (name: string, content: unknown) => writeFile(path.join(cwd, name), JSON.stringify(content));
  const {devDependencies: _, ...shipped} = await read('package.json');
  const {packages, ...lock} = await read('package-lock.json');
  const kept = Object.entries<{dev?: boolean}>(packages).filter(([name, {dev}]) => name !== '' && !dev);
  const {devDependencies: __, ...own} = packages[''];
  await write('package.json', shipped);
  await write('package-lock.json', {...lock, packages: {'': own, ...Object.fromEntries(kept)}});
  const npm = ['sbom', '--package-lock-only', '--sbom-format', 'cyclonedx', '--sbom-type', 'application'];
  const {components, ...rest} = JSON.parse((await execa('npm', npm, {cwd})).stdout);
  // npm knows the packages; the runtime that they are embedded in belongs to what is shipped.
  const {node: version} = process.versions;
  const runtime = {type: 'platform', 'bom-ref': `node@${version}`, name: 'node', version};
  return `${JSON.stringify({...rest, components: [runtime, ...components]}, undefined, 2)}\n`;
}

const folder = await mkdtemp(path.join(os.tmpdir(), 'loma-backup-binary-'));
try {
  const script = path.join(folder, 'loma-backup.cjs');
  await bundle(script);
  await embed(script, folder);
  await writeFile(`${output}.sha256`, `${await sha256(output)}  loma-backup\n`);
  await writeFile(`${output}.cdx.json`, await billOfMaterials(folder));
} finally {
  await rm(folder, {recursive: true});
}
process.stdout.write(`${output}: ${Math.round((await stat(output)).size / 1e6)} MB\n`);
