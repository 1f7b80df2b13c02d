# frozen_string_literal: true

require 'spec_helper'
require_relative '../../lib/puppet_x/om_messaging/ini_text'

describe PuppetX::OmMessaging::IniText do
  def edit(text)
    ini = described_class.new(text)
    yield ini
    ini.to_s
  end

  def set(text, *arguments)
    edit(text) { |ini| ini.set(*arguments) }
  end

  def remove(text, *arguments)
    edit(text) { |ini| ini.remove(*arguments) }
  end

  def get(text, section, key)
    described_class.new(text).get(section, key)
  end

  it 'reads as oslo.config does' do
    expect(get("[a]\nk = v\n", 'a', 'k')).to eq('v')
    expect(get("[a]\nk: v = w \r\n", 'a', 'k')).to eq('v = w')
    expect(get("[a]\nk =\n", 'a', 'k')).to eq('')
    expect(get("[a]\n#k = v\n;k = v\n[b]\nk = v\n", 'a', 'k')).to be_nil
    expect(get("k = v\n[a]\nx = 1\n k = 2\n", 'a', 'k')).to be_nil
  end

  it 'joins what takes several lines, so that it equals no single value' do
    expect(get("[a]\nk = v\n  w\nx = 1\n", 'a', 'k')).to eq("v\nw")
    expect(get("[a]\nk = v\n[b]\n[a]\nk = w\n", 'a', 'k')).to eq("v\nw")
  end

  it 'changes the value only' do
    expect(set("[a]\nk=v  \nx = 1", 'a', 'k', 'w')).to eq("[a]\nk=w  \nx = 1")
    expect(set("[a]\r\nk = v\r\n", 'a', 'k', 'w')).to eq("[a]\r\nk = w\r\n")
    expect(set("# caf\xE9\n[a]\nk = v\n", 'a', 'k', 'é')).to eq("# caf\xE9\n[a]\nk = é\n".b)
  end

  it 'leaves one assignment of a key, where the last one was' do
    text = "[a]\nk = 1\n  2\nx = 1\n[b]\nk = 3\n[a]\nk = 4\nk = 5\n 6\n"
    expect(set(text, 'a', 'k', 'v')).to eq("[a]\nx = 1\n[b]\nk = 3\n[a]\nk = v\n")
    expect(remove(text, 'a', 'k')).to eq("[a]\nx = 1\n[b]\nk = 3\n[a]\n")
    expect(remove(text, 'a', 'k', true)).to eq("[a]\nx = 1\n[b]\nk = 3\n")
  end

  it 'adds a key below its commented example, else at the end of its section' do
    expect(set("[a]\n# k = 1\nx = 1\n", 'a', 'k', 'v')).to eq("[a]\n# k = 1\nk = v\nx = 1\n")
    expect(set("[a]\nx = 1\n\n\n[b]\n", 'a', 'k', 'v')).to eq("[a]\nx = 1\nk = v\n\n\n[b]\n")
    expect(set("[a]\n\n[b]\n", 'a', 'k', 'v')).to eq("[a]\nk = v\n\n[b]\n")
  end

  it 'adds a section at the end, keeping the sections of oslo.messaging in order' do
    expect(set('', 'a', 'k', 'v')).to eq("[a]\nk = v\n")
    expect(set("[z]\nx = 1\n", 'a', 'k', 'v')).to eq("[z]\nx = 1\n\n[a]\nk = v\n")
    ordered = "[oslo_messaging_amqp]\nk = v\n\n[oslo_messaging_rabbit]\nx = 1\n"
    expect(set("[oslo_messaging_rabbit]\nx = 1\n", 'oslo_messaging_amqp', 'k', 'v')).to eq(ordered)
  end

  it 'removes a section only with its last key, and only when it is told to' do
    expect(remove("[a]\nk = v\n# note\n\n[b]\n", 'a', 'k', true)).to eq("[a]\n# note\n\n[b]\n")
    expect(remove("[a]\n\n[b]\nk = v\n", 'b', 'k', true)).to eq("[a]\n")
    expect(remove("[a]\n\n[b]\nk = v\n", 'b', 'k')).to eq("[a]\n\n[b]\n")
    expect(remove("[a]\n[b]\nx = v\n", 'b', 'k', true)).to eq("[a]\n[b]\nx = v\n")
  end

  originals = ['', "\n", "\n\n", 'x', "# c\n", "[DEFAULT]\na = 1", "[DEFAULT]\na = 1\n\n\n",
               "[z]\nq=1\n[oslo_messaging_b]\nx = 1\n[oslo_messaging_d]\ny = 1\n",
               "[oslo_messaging_c]\n# note\n\n\n[y]\n#k = 1\nq = 1\n",
               "[DEFAULT]\n\n[oslo_messaging_b]\n\n\n[oslo_messaging_d]\n[y]", '[oslo_messaging_c]'].freeze
  wanted = %w[oslo_messaging_a oslo_messaging_b oslo_messaging_c oslo_messaging_d oslo_messaging_e DEFAULT y]
           .product(%w[k l])

  it 'does not depend on the order of sections, and gives the file back byte for byte' do
    random = Random.new(1)
    originals.each do |original|
      sections = wanted.select { |section, _| section.start_with?('oslo') || original.include?("[#{section}]") }
      undo = ->(ini, section, key) { ini.remove(section, key, !original.include?("[#{section}]")) }
      100.times do
        ini = described_class.new(original)
        chosen = sections.sample(random.rand(1..8), random: random)
        others = sections.sample(random.rand(0..8), random: random)
        straight = edit(original) { |text| chosen.sort.each { |pair| text.set(*pair, 'v') } }
        (others - chosen).sort.each { |pair| ini.set(*pair, 'v') }
        chosen.sort.each { |pair| ini.set(*pair, 'v') }
        (others - chosen).shuffle(random: random).each { |pair| undo.call(ini, *pair) }
        expect(ini.to_s).to eq(straight)
        chosen.shuffle(random: random).each { |pair| undo.call(ini, *pair) }
        expect(ini.to_s).to eq(original.b)
      end
    end
  end
end
