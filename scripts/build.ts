/**
 * `npm run build`: the program in dist/, with what it needs of its libraries (scripts/shared/bundle.ts), and what oclif writes
 * about its commands: oclif.manifest.json and docs/COMMANDS.md.
 */
import {globSync} from 'node:fs';
import {readFile, rm, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {build} from 'esbuild';
import {billOfMaterials, bundledPackages, bundleOptions, licenseTexts, root} from './shared/bundle.ts';
import {oclif, writeReference} from './shared/oclif.ts';

const output = path.join(root, 'dist');

/** Libraries that are CommonJS ask for Node's own modules by a function that ES modules lack. */
const requireFunction = `import {createRequire as createRequireOfNode} from 'node:module';
const require = createRequireOfNode(import.meta.url);`;

async function bundle() {
  const {metafile} = await build({
    ...bundleOptions,
    entryPoints: ['src/main.ts', ...globSync('src/commands/**/*.ts', {cwd: root}).sort()],
    outbase: 'src',
    outdir: output,
    // A command loads what it needs, and no more.
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    format: 'esm',
    target: 'node22.15',
    banner: {js: requireFunction},
  });
  return bundledPackages(metafile);
}

/** oclif writes the commands in the order in which the file system gives them: sorted, a build on any machine writes the same file. */
async function writeManifest(): Promise<void> {
  await oclif('manifest');
  const file = path.join(root, 'oclif.manifest.json');
  const manifest = JSON.parse(await readFile(file, 'utf8'));
  const byName = ([a]: [string, unknown], [b]: [string, unknown]) => (a < b ? -1 : 1);
  const commands = Object.fromEntries(Object.entries(manifest.commands).sort(byName));
  await writeFile(file, `${JSON.stringify({...manifest, commands}, undefined, 2)}\n`);
}

await rm(output, {recursive: true, force: true});
const packages = await bundle();
await writeFile(path.join(output, 'THIRD-PARTY-LICENSES.txt'), await licenseTexts(packages));
await writeFile(
  path.join(output, 'sbom.cdx.json'),
  `${JSON.stringify(await billOfMaterials(packages), undefined, 2)}\n`,
);
await writeManifest();
await writeReference('docs/COMMANDS.md');
