/**
 * The program in modules of our own, with what it needs of its libraries: what is installed is what was tested, version for
 * version, and starts faster than hundreds of small files. What came along is told beside it: licences, and a bill of materials.
 */
import {mkdir, mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type {BuildOptions, Metafile} from 'esbuild';
import {execa} from 'execa';

export const root = path.resolve(import.meta.dirname, '../..');

export const bundleOptions = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  // ES modules can be shaken: the bundle is a third smaller, and starts faster.
  mainFields: ['module', 'main'],
  // Error classes are told apart by name in the AWS SDK.
  keepNames: true,
  // All of them stand in a file of their own.
  legalComments: 'none',
  logLevel: 'warning',
  // oclif would only run TypeScript sources with it, which src/main.ts forbids.
  external: ['typescript'],
  metafile: true,
} as const satisfies BuildOptions;

export interface BundledPackage {
  name: string;
  version: string;
  /** From the root of the project. */
  folder: string;
}

/** The packages of which something is in a bundle, by name and version. */
export async function bundledPackages({outputs}: Metafile): Promise<BundledPackage[]> {
  const used = Object.values(outputs).flatMap(({inputs}) =>
    Object.entries(inputs).flatMap(([file, {bytesInOutput}]) => (bytesInOutput > 0 ? [file] : [])),
  );
  const folders = new Set(used.flatMap((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0] ?? []));
  const packages = await Promise.all(
    [...folders].map(async (folder) => {
      const {name, version} = JSON.parse(await readFile(path.join(root, folder, 'package.json'), 'utf8'));
      return {name, version, folder};
    }),
  );
  return packages.sort((a, b) => (idOf(a) < idOf(b) ? -1 : 1));
}

function idOf({name, version}: {name: string; version: string}): string {
  return `${name}@${version}`;
}

/** The licences and notices of all packages, as they want to be passed on; a text that is the same for several stands there once. */
export async function licenseTexts(packages: readonly BundledPackage[]): Promise<string> {
  const namesByText = new Map<string, string[]>();
  for (const {name, version, folder} of packages) {
    const text = await licenseText(folder);
    namesByText.set(text, [...(namesByText.get(text) ?? []), `${name} ${version}`]);
  }
  const sections = [...namesByText].map(([text, names]) => `${names.join('\n')}\n\n${text}`);
  const line = `\n\n${'-'.repeat(80)}\n\n`;
  return `loma-backup holds code of these packages, under their licences.${line}${sections.join(line)}\n`;
}

async function licenseText(folder: string): Promise<string> {
  const file = (name: string) => readFile(path.join(root, folder, name), 'utf8');
  const names = (await readdir(path.join(root, folder))).filter((name) => /^(licen[cs]e|notice|copying)/i.test(name));
  const texts = await Promise.all(names.sort().map(file));
  const {license} = JSON.parse(await file('package.json'));
  return [`License: ${license}`, ...texts.map((text) => text.trim())].join('\n\n');
}

interface Component {
  'bom-ref': string;
  name: string;
  version: string;
  properties?: {name: string; value: string}[];
  [more: string]: unknown;
}

interface Sbom {
  components: Component[];
  dependencies: {ref: string; dependsOn: string[]}[];
  metadata: {component: {'bom-ref': string}};
  [more: string]: unknown;
}

/** For npm, a package that nobody has to install is one for development, and optional. */
function asShipped({properties = [], ...component}: Component): Component {
  const rest = properties.filter(({name}) => name !== 'cdx:npm:package:development');
  return {...component, scope: 'required', ...(rest.length > 0 ? {properties: rest} : {})};
}

/** A CycloneDX list of a bundle's packages: npm's own, without those that are only used to make the program. */
export async function billOfMaterials(packages: readonly BundledPackage[]): Promise<Sbom> {
  const parent = await mkdtemp(path.join(os.tmpdir(), 'loma-backup-sbom-'));
  try {
    // npm takes the program's name from the directory.
    const cwd = path.join(parent, 'loma-backup');
    await mkdir(cwd);
    for (const name of ['package.json', 'package-lock.json'])
      await writeFile(path.join(cwd, name), await readFile(path.join(root, name)));
    const npm = ['sbom', '--package-lock-only', '--sbom-format', 'cyclonedx', '--sbom-type', 'application'];
    const {components, dependencies, ...rest} = JSON.parse((await execa('npm', npm, {cwd})).stdout) as Sbom;
    const bundled = new Set(packages.map(idOf));
    const kept = components.filter((component) => bundled.delete(idOf(component))).map(asShipped);
    if (bundled.size > 0) throw new Error(`npm's list lacks ${[...bundled].join(', ')}`);
    const references = new Set([rest.metadata.component['bom-ref'], ...kept.map((component) => component['bom-ref'])]);
    return {
      ...rest,
      components: kept,
      dependencies: dependencies
        .filter(({ref}) => references.has(ref))
        .map(({ref, dependsOn}) => ({ref, dependsOn: dependsOn.filter((other) => references.has(other))})),
    };
  } finally {
    await rm(parent, {recursive: true});
  }
}
