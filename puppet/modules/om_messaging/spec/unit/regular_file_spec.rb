# frozen_string_literal: true

require 'spec_helper'
require 'tmpdir'
require_relative '../../lib/puppet_x/om_messaging/regular_file'

describe PuppetX::OmMessaging::RegularFile do
  around { |example| Dir.mktmpdir { |directory| Dir.chdir(directory) { example.run } } }

  before do
    File.write('victim', 'secret')
    File.symlink('victim', 'link')
    File.symlink('nothing', 'dangling')
    File.link('victim', 'second')
    Dir.mkdir('directory')
    File.mkfifo('pipe')
  end

  let(:read) { ->(path) { described_class.look(path, &:read) } }
  let(:write) { ->(path) { described_class.open(path, File::WRONLY | File::CREAT) { |file| file.write('x') } } }

  it 'opens a file, or makes one' do
    expect(read.call('nothing')).to be_nil
    write.call('nothing')
    expect(read.call('nothing')).to eq('x')
  end

  %w[link dangling second directory pipe].each do |name|
    it "refuses a #{name} at once" do
      [read, write].each { |act| expect { act.call(name) }.to raise_error(Puppet::Error, %r{\A#{name} (is|has) }) }
      expect(File.read('victim')).to eq('secret')
      expect(File.exist?('nothing')).to be(false)
    end
  end
end
